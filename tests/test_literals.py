"""Constants of upstream Python files: read through `ast`, never run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_core.errors import DataError
from loom_core.literals import Template, constants

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


def test_classes_and_functions() -> None:
    assert read("Config.TEXT", "Config.ask.template") == ["inner!", "{q}?"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("CHANGED", "changed after"),
        ("LOOP", "refers to itself"),
        ("CALL", "Call is no literal"),
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
