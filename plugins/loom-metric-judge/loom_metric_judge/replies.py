"""How a judge's reply is read. What cannot be read raises ValueError, which costs the value and names the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence

_BRACKETS = re.compile(r"\[\[\s*([^\[\]]+?)\s*\]\]")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def label(reply: str, allowed: Collection[str]) -> str:
    """The one label of a reply, in lower case: the last [[…]], or a reply that is nothing but a label.

    Two different labels in brackets are no reply: a judge that weighs both must say which it means.
    """
    found: set[str] = {text.lower() for text in _BRACKETS.findall(reply)} or {reply.strip().strip(".!").lower()}
    said = found & set(allowed)
    if len(said) != 1 or len(found) > 1:
        raise ValueError(f"the judge's reply is none of {', '.join(sorted(allowed))}: {_short(reply)}")
    return next(iter(said))


def mark(reply: str, low: float, high: float, allowed: Sequence[float] = ()) -> float:
    """The one mark of a reply: in [[…]], or the only number of a reply without brackets."""
    texts = _BRACKETS.findall(reply)
    numbers = [float(text) for text in texts if _NUMBER.fullmatch(text)] or (
        [float(text) for text in _NUMBER.findall(reply)] if not texts else []
    )
    if len(set(numbers)) != 1:
        raise ValueError(f"the judge's reply holds {len(set(numbers)) or 'no'} marks: {_short(reply)}")
    number = numbers[0]
    if not low <= number <= high or (allowed and number not in allowed):
        raise ValueError(f"the judge's mark {number:g} is none of its scale")
    return number


def marks(reply: str, names: Sequence[str], low: float, high: float) -> Mapping[str, float]:
    """The marks of a JSON object in a reply, one for each name."""
    start, end = reply.find("{"), reply.rfind("}")
    try:
        found = json.loads(reply[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"the judge's reply holds no JSON object: {_short(reply)}")
    values = {}
    for name in names:
        value = found.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(f"the judge's reply has no mark of its scale for {name}")
        values[name] = float(value)
    return values


def _short(reply: str) -> str:
    text = " ".join(reply.split())
    return repr(text if len(text) <= 80 else text[:79] + "…")
