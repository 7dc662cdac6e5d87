"""Records of upstream files, checked field by field: JSON lines, one JSON list, or Parquet. Knows no benchmark.

A record that lacks a field, or has one of another type, is left out, counted in `Data.bad` with file, line and field,
and the rest goes on. Files are read piece by piece: memory holds one record (a few, of Parquet), whatever the size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from loom_core.contract.errors import DataError
from loom_core.contract.protocols import Data
from loom_core.contract.types import BadRecord, DataSource, Json
from loom_core.data import parquet

Check: TypeAlias = Callable[[Json], str | None]
"""What is wrong with a value ("not a text but a list"); None where it is right. Absent fields reach only `optional`."""

CHUNK = 1 << 20
_KINDS: Mapping[type, str] = {
    bool: "a truth value",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class Record:
    """A record whose declared fields are right. number: its line (or item of a list) in the file, from 1. values: all
    its fields, those that nobody declared included."""

    number: int
    values: Mapping[str, Json]

    def __getitem__(self, name: str) -> Json:
        return self.values[name]

    def get(self, name: str, default: Json = None) -> Json:
        """The field, or the default where it is absent."""
        return self.values.get(name, default)


# --- checks ----------------------------------------------------------------------------------------------------------


def _kind(value: Json) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _of(*kinds: type) -> Check:
    wanted = " or ".join(_KINDS[kind] for kind in kinds)

    def check(value: Json) -> str | None:
        # Exact types: JSON's true is not a whole number, although Python's is.
        return None if type(value) in kinds else f"not {wanted} but {_kind(value)}"

    return check


text = _of(str)
whole = _of(int)
number = _of(int, float)
truth = _of(bool)
mapping = _of(dict)


def anything(value: Json) -> str | None:
    """Every value, as long as the field is there."""
    return None


def listed(item: Check, *, at_least: int = 0) -> Check:
    """A list whose items all pass `item`."""

    def check(value: Json) -> str | None:
        if type(value) is not list:
            return f"not a list but {_kind(value)}"
        if len(value) < at_least:
            return f"{len(value)} items, at least {at_least} are needed"
        wrong = ((i, item(one)) for i, one in enumerate(value))
        return next((f"item {i}: {why}" for i, why in wrong if why), None)

    return check


texts = listed(text)


def one_of(*allowed: Json) -> Check:
    """One of these values."""

    def check(value: Json) -> str | None:
        same = any(type(value) is type(one) and value == one for one in allowed)
        return None if same else f"{_short(value)}, not one of {', '.join(map(str, allowed))}"

    return check


def either(*checks: Check) -> Check:
    """A value that passes one of the checks."""

    def check(value: Json) -> str | None:
        problems = [one(value) for one in checks]
        return None if None in problems else ", and ".join(str(problem) for problem in problems)

    return check


@dataclass(frozen=True, slots=True)
class optional:
    """A field that may be absent or null; where it is given it passes `check`."""

    check: Check

    def __call__(self, value: Json) -> str | None:
        return None if value is None else self.check(value)


def _short(value: Json) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 40 else shown[:39] + "…"


# --- reading ---------------------------------------------------------------------------------------------------------


def read_records(
    data: Data,
    source: DataSource,
    fields: Mapping[str, Check],
    *,
    form: Literal["jsonl", "json", "parquet"] = "jsonl",
    strict: bool = True,
) -> Iterator[Record]:
    """The right records of a pinned file, in order; each wrong one is noted once in `data.bad`.

    form "json": the file is one JSON list; "parquet": fields are columns, and an absent one that is not `optional`
    ends the reading. strict False: raw control characters may stand in texts, as some upstream files have them. Raises
    DataError (`Unavailable` included) where the file cannot be had, or is not a list or no Parquet.
    """
    path = data.path(source)
    word = {"jsonl": "line", "json": "item", "parquet": "row"}[form]
    if form == "parquet":
        rows = parquet.rows(
            path, source.pin, [name for name, check in fields.items() if not isinstance(check, optional)]
        )
    else:
        rows = _lines(path, strict) if form == "jsonl" else _items(path, source, strict)
    for at, value in rows:
        wrong = ("", value.why) if isinstance(value, _Broken) else problem(value, fields)
        if wrong is None:
            yield Record(at, value)
        else:
            data.bad[BadRecord(pin=source.pin, place=f"{word} {at}", field=wrong[0], why=wrong[1])] = None


def problem(value: Json, fields: Mapping[str, Check]) -> tuple[str, str] | None:
    """The first field that is wrong, and why; None where all are right."""
    if type(value) is not dict:
        return "", f"not an object but {_kind(value)}"
    for name, check in fields.items():
        if name not in value and not isinstance(check, optional):
            return name, "missing"
        if why := check(value.get(name)):
            return name, why
    return None


@dataclass(frozen=True, slots=True)
class _Broken:
    """A line that is not JSON."""

    why: str


def _lines(path: Path, strict: bool) -> Iterator[tuple[int, Json]]:
    with path.open("rb") as file:
        for at, line in enumerate(file, 1):
            # Only \n ends a line: texts may hold U+2028 and the like.
            if not line.strip():
                continue
            try:
                yield at, json.loads(line.decode("utf-8-sig" if at == 1 else "utf-8"), strict=strict)
            except (ValueError, RecursionError) as error:
                yield at, _Broken(f"not valid JSON: {error}")


def _items(path: Path, source: DataSource, strict: bool) -> Iterator[tuple[int, Json]]:
    """The items of a JSON list, one in memory at a time."""
    decoder = json.JSONDecoder(strict=strict)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            window = _Window(file.read)
            if window.next() != "[":
                raise ValueError("the file does not begin with a list")
            window.at += 1
            at = 0
            while (sign := window.next()) != "]":
                if at and sign != ",":
                    raise ValueError(f"',' or ']' expected after item {at}")
                window.at += bool(at)
                window.next()
                at += 1
                yield at, window.decode(decoder)
    except (ValueError, RecursionError) as error:
        raise DataError(
            "a data file is not a JSON list", where=source.pin, why=str(error), hint="loom data verify BENCHMARK"
        ) from error


@dataclass
class _Window:
    """A moving view of a text file; `read(n)` gives the next characters. at: where the reader is in `text`."""

    read: Callable[[int], str]
    text: str = ""
    at: int = 0
    ended: bool = False

    def more(self) -> None:
        """Drop what is read and add at least as much as is left, so that a long item is tried few times."""
        left = self.text[self.at :]
        new = self.read(max(CHUNK, len(left)))
        self.text, self.at, self.ended = left + new, 0, not new

    def next(self) -> str:
        """Skip white space; the character there, "" at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def decode(self, decoder: json.JSONDecoder) -> Json:
        """The value that begins here. Raises ValueError where there is none."""
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.at)
            except ValueError:
                if self.ended:
                    raise
            else:
                # A number at the edge of the view may go on behind it.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            self.more()
