"""How a judge's reply is read. What cannot be read raises ValueError, which costs the value and names the reason.

One rule for every form: the mark stands at the end. Of the reply's last line that is not empty, what counts is the one
mark in double brackets with nothing behind it but a full stop or emphasis; or the whole reply is the mark and nothing
else. A mark on an earlier line is thought aloud or quoted, one in a quoted line (`>`) or in quotes is quoted: none
counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence

_BRACKETS = re.compile(r"\[\[\s*([^\[\]]+?)\s*\]\]")
_AT_END = re.compile(r"\[\[\s*([^\[\]]+?)\s*\]\][\s.!*_]*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)


def label(reply: str, allowed: Collection[str]) -> str:
    """The label that the reply ends with, in lower case."""
    said = _said(reply).lower()
    if said not in allowed:
        raise ValueError(f"the judge's reply does not end with one of {', '.join(sorted(allowed))}: {short(reply)}")
    return said


def mark(reply: str, low: float, high: float, allowed: Sequence[float] = ()) -> float:
    """The mark that the reply ends with."""
    said = _said(reply)
    if not _NUMBER.fullmatch(said):
        raise ValueError(f"the judge's reply does not end with a mark: {short(reply)}")
    number = float(said)
    if not low <= number <= high or (allowed and number not in allowed):
        raise ValueError(f"the judge's mark {number:g} is none of its scale")
    return number


def marks(reply: str, names: Sequence[str], low: float, high: float) -> Mapping[str, float]:
    """The marks of the JSON object that the reply ends with (a closing fence may follow), one for each name."""
    found = _object_at_end(reply)
    if found is None:
        raise ValueError(f"the judge's reply does not end with a JSON object: {short(reply)}")
    values = {}
    for name in names:
        value = found.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(f"the judge's reply has no mark of its scale for {name}")
        values[name] = float(value)
    return values


def _said(reply: str) -> str:
    """What the reply ends with as its own mark; empty where it has none."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    if not lines or lines[-1].startswith(">"):
        return ""
    found = list(_BRACKETS.finditer(lines[-1]))
    if not found:
        return lines[0].strip(".! ") if len(lines) == 1 and "[[" not in lines[0] else ""
    end = _AT_END.fullmatch(lines[-1], found[-1].start())
    # Two different marks side by side are not a verdict: a judge that weighs both must say which it means.
    alone = len({one[1].lower() for one in found}) == 1
    return end[1] if end and alone else ""


def _object_at_end(reply: str) -> dict[str, object] | None:
    """The outermost JSON object whose end is the reply's."""
    text = reply.rstrip()
    if text.endswith("```"):
        text = text.removesuffix("```").rstrip()
    start = text.find("{")
    while start >= 0 and text.endswith("}"):
        try:
            found, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            found, end = None, start + 1
        if isinstance(found, dict) and end == len(text):
            return found
        start = text.find("{", end)
    return None


def short(reply: str) -> str:
    """The beginning of a reply, for a reason."""
    text = " ".join(reply.split())
    return repr(text if len(text) <= 80 else text[:79] + "…")
