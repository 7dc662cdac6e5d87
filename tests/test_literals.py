"""Constants of upstream Python files: read through `ast`, never run."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from loom_core.api import DataError
from loom_core.api.records import Template, constants

SOURCE = """
import os
raise SystemExit("this file must never run")
PROMPT: str = "a {context} b"
LIMITS = {"qa": 2 * 64, "sum": -1, "names": ["x", ("y", 1.5, None, True)]}
first, (second, *rest) = 1, (2, 3)
A, B = 1, 2
HEAD = "{braces} "
BOTH = HEAD + f"Q: {question!r} {{kept}} {n:>3}\\n" "tail {"
class Config:
    HEAD = "inner"
    TEXT = HEAD + "!"
    def ask(self, q):
        template = f"{q}?"
        return template
CHANGED = "a"
CHANGED += "b"
LOOP = LOOP
CALL = os.getenv("HOME")
DEEP = f"{a.b}"
SPEC = f"{a:{b}}"
ODD = "a" + 1
TWICE = 1
TWICE = 2
"""


def read(*names: str) -> list[object]:
    return list(constants(SOURCE, names, where="up.py").values())


def test_literals() -> None:
    assert read("PROMPT", "LIMITS", "A", "B", "TWICE") == [
        "a {context} b",
        {"qa": 128, "sum": -1, "names": ["x", ("y", 1.5, None, True)]},
        1,
        2,
        2,
    ]


def test_f_strings_become_templates() -> None:
    (both,) = read("BOTH")
    assert isinstance(both, Template)
    assert both == "{{braces}} Q: {question!r} {{kept}} {n:>3}\ntail {{"
    assert both.format(question="x", n=5) == "{braces} Q: 'x' {kept}   5\ntail {"
    assert not isinstance(read("PROMPT")[0], Template)


NESTED = """
TASK = '{instruction}\\n\\n{examples}'
USER = '<context>{context}</context> {question}'
WHOLE = f'{TASK}\\n\\n{USER}'
FRAMED = f'[{WHOLE}]'
AGAIN = TASK
TASK = f'{TASK}!'
WIDE = f'{AGAIN!r:>30}|{SIZE:03d}'
SIZE = 7
SHORT = f'{SIZE:03d} {TASK!s}'
if SIZE:
    BRANCH = 'later'
BRANCH = 'sometimes'
OF_BRANCH = f'{BRANCH}'
TWO = ['a']
OF_TWO = f'{TWO}'
class Asked:
    TASK = 'inner {a}'
    TEXT = f'{TASK} {SIZE}'
    def ask(self, SIZE):
        head = 'head {x}'
        loop = 'a'
        for loop in ():
            pass
        mixed = f'{head} {SIZE} {WHOLE} {late}'
        twice = f'{loop} {TASK}'
        framed = f'<{mixed}>'
        late = 'b'
def change():
    global GLOBAL
    GLOBAL = 2
GLOBAL = 1
OF_GLOBAL = f'{GLOBAL}'
"""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WHOLE", "{instruction}\n\n{examples}\n\n<context>{context}</context> {question}"),
        ("FRAMED", "[{instruction}\n\n{examples}\n\n<context>{context}</context> {question}]"),
        ("AGAIN", "{instruction}\n\n{examples}"),
        ("TASK", "{instruction}\n\n{examples}!"),
        ("SHORT", "007 {instruction}\n\n{examples}!"),
        ("Asked.TEXT", "inner {a} 7"),
    ],
)
def test_an_f_string_of_constants_is_the_string_it_would_be(name: str, value: str) -> None:
    found = constants(NESTED, [name], where="up.py")[name]
    assert found == value
    assert type(found) is str, "a Template would be formatted once too often"


@pytest.mark.parametrize(
    ("name", "template"),
    [
        # SIZE is assigned later: run, the file would fail there; the field says that the name is open.
        ("WIDE", " '{{instruction}}\\n\\n{{examples}}'|{SIZE:03d}"),
        ("OF_BRANCH", "{BRANCH}"),
        ("OF_TWO", "{TWO}"),
        ("OF_GLOBAL", "{GLOBAL}"),
        # A parameter hides the module's constant; a class body's names are unknown to its methods.
        (
            "Asked.ask.mixed",
            "head {{x}} {SIZE} {{instruction}}\n\n{{examples}}\n\n<context>{{context}}</context> {{question}} {late}",
        ),
        ("Asked.ask.twice", "{loop} {{instruction}}\n\n{{examples}}!"),
    ],
)
def test_names_that_are_no_constants_stay_fields(name: str, template: str) -> None:
    found = constants(NESTED, [name], where="up.py")[name]
    assert isinstance(found, Template)
    assert found == template


def test_attributes_of_an_instance() -> None:
    source = """
LEAD = 'Lead. '
class Judge:
    def __init__(self, model):
        tail = ' {end}'
        self.template = LEAD + '{a}' + tail
        self.mixed = f'{LEAD}{model}'
        self.model = model
"""
    found = constants(source, ["Judge.__init__.self.template", "Judge.__init__.self.mixed"], where="up.py")
    assert list(found.values()) == ["Lead. {a} {end}", "Lead. {model}"]
    with pytest.raises(DataError, match="not a constant of the file"):
        constants(source, ["Judge.__init__.self.model"], where="up.py")


def test_a_template_in_a_template_keeps_its_fields() -> None:
    found = constants(NESTED, ["Asked.ask.mixed", "Asked.ask.framed"], where="up.py")
    assert found["Asked.ask.framed"] == f"<{found['Asked.ask.mixed']}>"


def test_classes_and_functions() -> None:
    assert read("Config.TEXT", "Config.ask.template") == ["inner!", "{q}?"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("CHANGED", "changed after"),
        ("LOOP", "refers to itself"),
        ("CALL", "Call is not a literal"),
        ("DEEP", "more than plain names"),
        ("SPEC", "computed format"),
        ("ODD", "unlike"),
        ("rest", "no constant"),
        ("LIMIT", "LIMITS"),
    ],
)
def test_refusals_name_file_and_reason(name: str, why: str) -> None:
    with pytest.raises(DataError, match=f"(?s)up.py.*{why}|{why}.*up.py"):
        read(name)


def test_a_file_that_does_not_parse() -> None:
    with pytest.raises(DataError, match="cannot be parsed"):
        constants("def", ["x"], where="up.py")


LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(LITERALS)
def test_every_literal_comes_back(value: object) -> None:
    assert constants(f"X = {value!r}", ["X"], where="x.py") == {"X": value}


@given(st.text(alphabet="ab{}\n'\"\\é", max_size=20), st.text(max_size=5))
def test_a_template_formats_as_the_f_string_would(text: str, value: str) -> None:
    source = "X = f" + repr(text.replace("{", "{{").replace("}", "}}") + "{name}")
    template = constants(source, ["X"], where="x.py")["X"]
    assert template.format(name=value) == text + value
