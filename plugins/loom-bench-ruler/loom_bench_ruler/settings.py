"""What the thirteen tasks are made of: their settings and wording, loom's own or read from the authors' files.

The settings are the facts of the authors' scripts/synthetic.yaml; the wording of the official variant is read from
their scripts/data/synthetic/constants.py on use, and loom's is its own.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field

from loom_core.api import DataError, Json

MAX_TOKENS = {"niah": 128, "vt": 30, "cwe": 120, "fwe": 50, "qa": 32}
"""New tokens of each family, as the authors allow them. Tasks are described before any file is read; `read_wording`
checks that the file agrees."""
FAMILIES = {
    "niah": "niah",
    "variable_tracking": "vt",
    "common_words_extraction": "cwe",
    "freq_words_extraction": "fwe",
    "qa": "qa",
}
"""The authors' names of the families, and loom's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needles:
    """A needle task. haystack: noise, essay or needle; keys: words or uuids; values: numbers or uuids."""

    haystack: str
    keys: str = "words"
    values: str = "numbers"
    n_keys: int = 1
    n_values: int = 1
    n_queries: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Variable tracking: chains of `hops` assignments after the first."""

    chains: int = 1
    hops: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """Common words: `words` of them, each `often` times; every other word `seldom` times."""

    often: int = 30
    seldom: int = 3
    words: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequent:
    """Frequent words: Zipf's law with this exponent; the three most frequent coded words are asked for."""

    alpha: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Questions on documents: "squad" needs one of them, "hotpotqa" two."""

    dataset: str


Settings = Needles | Chains | Common | Frequent | Questions

LOOM_SETTINGS: Mapping[str, Settings] = {
    "niah_single_1": Needles(haystack="noise"),
    "niah_single_2": Needles(haystack="essay"),
    "niah_single_3": Needles(haystack="essay", values="uuids"),
    "niah_multikey_1": Needles(haystack="essay", n_keys=4),
    "niah_multikey_2": Needles(haystack="needle"),
    "niah_multikey_3": Needles(haystack="needle", keys="uuids", values="uuids"),
    "niah_multivalue": Needles(haystack="essay", n_values=4),
    "niah_multiquery": Needles(haystack="essay", n_keys=4, n_queries=4),
    "vt": Chains(),
    "cwe": Common(),
    "fwe": Frequent(),
    "qa_1": Questions(dataset="squad"),
    "qa_2": Questions(dataset="hotpotqa"),
}


def family(settings: Settings) -> str:
    """niah, vt, cwe, fwe or qa."""
    return {Needles: "niah", Chains: "vt", Common: "cwe", Frequent: "fwe", Questions: "qa"}[type(settings)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A family's prompt: `before` and `after` stand around the context, `prefix` begins the assistant's turn.

    All three may have blanks. needle: a hidden sentence, with blanks {key} and {value}.
    """

    before: str
    after: str
    prefix: str
    needle: str = ""
    plural: Mapping[str, str] = field(default_factory=dict)

    def several(self) -> Wording:
        """The wording that asks for several values, where it differs."""
        return Wording(
            before=self.plural.get("before", self.before),
            after=self.plural.get("after", self.after),
            prefix=self.plural.get("prefix", self.prefix),
            needle=self.needle,
        )


LOOM_WORDING: Mapping[str, Wording] = {
    "niah": Wording(
        before="The text below gives secret codes somewhere. Read all of it; a question about the codes follows.\n\n",
        after="\n\nAccording to the text above, what is the secret code for {query}?\n",
        prefix="The secret code for {query} is",
        needle="The secret code for {key} is {value}.",
        plural={
            "after": "\n\nAccording to the text above, what are all the secret codes for {query}?\n",
            "prefix": "The secret codes for {query} are",
        },
    ),
    "vt": Wording(
        before="In the text below, boxes are filled with numbers or with what another box holds. Keep track.\n\n",
        after="\n\nWhich boxes hold the number {query} in the end? Name all {count} of them.\n",
        prefix="The boxes that hold {query} are",
    ),
    "cwe": Wording(
        before="Below is a numbered list in which a few words stand far more often than all others.\n\n",
        after="\n\nWhich {count} words stand in the list most often?\n",
        prefix="The {count} most frequent words are",
    ),
    "fwe": Wording(
        before="The text below has made-up words. Count how often each occurs; rows of dots do not count.\n\n",
        after="\n\nWhich {count} made-up words occur most often?\n",
        prefix="The {count} most frequent words are",
    ),
    "qa": Wording(
        before="Read the documents below, then answer the question with as few words as you can.\n\n",
        after="\n\nAnswer from the documents above, with as few words as you can.\nQuestion: {query}\n",
        prefix="Answer:",
    ),
}


def read_settings(text: str, where: str) -> dict[str, Settings]:
    """The tasks of the authors' synthetic.yaml. Raises DataError naming what is missing or unlike.

    The file is a plain nested mapping of scalars; this reads that much of YAML and refuses the rest.
    """
    rows: dict[str, dict[str, str]] = {}
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].rstrip()
        match = re.fullmatch(r"( *)([A-Za-z_]\w*):(?: +(\S+))?", line)
        if not line:
            continue
        if not match:
            raise DataError("the settings of RULER cannot be read", where=f"{where}, line {number}", why=repr(line))
        if not match[1]:
            name = match[2]
            rows[name] = {}
        elif match[3] is not None:
            rows.setdefault(name, {})[match[2]] = match[3].strip("\"'")
    try:
        return {task: _settings(row) for task, row in rows.items()}
    except (KeyError, ValueError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError("the settings of RULER are not as known", where=where, why=why) from error


def _settings(row: Mapping[str, str]) -> Settings:
    kind = FAMILIES[row["task"]]
    if kind == "niah":
        n_queries = int(row["num_needle_q"])
        return Needles(
            haystack=_one_of(row["type_haystack"], ("noise", "essay", "needle")),
            keys=_one_of(row["type_needle_k"], ("words", "uuids")),
            values=_one_of(row["type_needle_v"], ("numbers", "uuids")),
            n_keys=max(int(row["num_needle_k"]), n_queries),
            n_values=int(row["num_needle_v"]),
            n_queries=n_queries,
        )
    if kind == "vt":
        _one_of(row["type_haystack"], ("noise",))
        return Chains(chains=int(row["num_chains"]), hops=int(row["num_hops"]))
    if kind == "cwe":
        return Common(often=int(row["freq_cw"]), seldom=int(row["freq_ucw"]), words=int(row["num_cw"]))
    if kind == "fwe":
        return Frequent(alpha=float(row["alpha"]))
    return Questions(dataset=_one_of(row["dataset"], ("squad", "hotpotqa")))


def _one_of(value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is not one of {', '.join(known)}")
    return value


def read_wording(tasks: Json, where: str) -> dict[str, Wording]:
    """The families' wording from the TASKS table of the authors' constants.py. Raises DataError.

    A needle task that asks for one value only has its template put into the singular, as the authors' generator does.
    """
    found = {}
    try:
        for upstream, name in FAMILIES.items():
            row = tasks[upstream]
            if row["tokens_to_generate"] != MAX_TOKENS[name]:
                raise ValueError(f"{upstream} allows {row['tokens_to_generate']!r} new tokens, not {MAX_TOKENS[name]}")
            template, prefix = str(row["template"]), str(row["answer_prefix"])
            wording = _split(template, prefix, upstream)
            found[name] = _needle_wording(template, prefix, wording) if name == "niah" else wording
    except (KeyError, TypeError, ValueError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError("the templates of RULER are not as known", where=where, why=why) from error
    return found


def _split(template: str, prefix: str, owner: str) -> Wording:
    before, blank, after = template.partition("{context}")
    known = {"query", "type_needle_v", "num_v", "context"}
    fields = {name for _, name, _, _ in string.Formatter().parse(template + prefix) if name is not None}
    if not blank or fields - known:
        raise ValueError(f"the template of {owner} has the blanks {sorted(fields)}")
    return Wording(before=before, after=after, prefix=prefix)


def _needle_wording(template: str, prefix: str, plural: Wording) -> Wording:
    """The singular wording, and the needle: "One of the … for KEY is: VALUE.", with the words the prefix has."""
    match = re.search(r"The (.*?) for \{query\}", prefix)
    if not match or "{type_needle_v}" not in match[1]:
        raise ValueError(f"no words for the needle in {prefix!r}")
    both = [_singular(template), _singular(prefix)]
    one = _split(both[0], both[1], "niah")
    return Wording(
        before=one.before,
        after=one.after,
        prefix=one.prefix,
        needle=f"One of the {match[1]} for {{key}} is: {{value}}.",
        plural={"before": plural.before, "after": plural.after, "prefix": plural.prefix},
    )


def _singular(text: str) -> str:
    for old, new in (("Some", "A"), ("are all", "is"), ("are", "is"), ("answers", "answer")):
        text = text.replace(old, new)
    return text


def read_noise(text: str, where: str) -> str:
    """The noise of the authors' niah.py: the longest plain string assigned to `haystack`. Nothing of it is executed."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise DataError("an upstream Python file cannot be parsed", where=where, why=str(error)) from error
    found = [
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and any(isinstance(target, ast.Name) and target.id == "haystack" for target in node.targets)
    ]
    if not found:
        raise DataError("no noise text in an upstream file", where=where, why="no string is assigned to `haystack`")
    return max(found, key=len).strip()
