"""Where values of plugins come in: what they gave is a record that can be averaged and kept, or says whose it is.

One function a record type. A value that is refused costs its sample that value, with the reason; it is never averaged,
never forced into its range, and never ends the run. Knows records and declared ranges; reads no file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loom_core.keys import plain
from loom_core.types import Json, Scored

LARGEST = 1e100
"""Numbers beyond it overflow where they are summed or squared."""
SLACK = 1e-9
SHOWN = 60


def scored(given: object, metric: str) -> Scored:
    """What a scorer of `metric` gave, as a score that can be kept; without a value, and with the reason, where it is
    none.

    numpy's scalars are numbers. Numbers in text, lists, complex and non-finite numbers are not; a detail that is no
    JSON costs the value as well.
    """
    if not isinstance(given, Scored):
        return _refused(f"metric {metric} gave {_shown(given)} where a Scored is expected")
    value, why = _number(given.value)
    detail, extracted = _json(given.detail), _json(given.extracted)
    kept = dict(detail) if isinstance(detail, Mapping) else {}
    if why is None and (detail is _NO_JSON or not isinstance(detail, Mapping)):
        why = "a detail that is no JSON"
    if why is None and extracted is _NO_JSON:
        why = "an extracted answer that is no JSON"
    clean = Scored(value=value, extracted=None if extracted is _NO_JSON else extracted, detail=kept)
    if why is None:
        return clean
    return replace(clean, value=None, detail={**kept, "error": f"the scorer gave {why} (metric {metric})"})


def in_range(given: Scored, metric: str, low: float | None, high: float | None) -> Scored:
    """The score; without its value where that is outside the range that the metric declares (None: no end)."""
    value = given.value
    if value is None:
        return given
    slack = SLACK * max(1.0, *(abs(end) for end in (low, high) if end is not None and math.isfinite(end)))
    if (low is None or value >= low - slack) and (high is None or value <= high + slack):
        return given
    ends = f"{'-∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"
    why = f"metric {metric} gave {value:g}, outside its declared range {ends}"
    return replace(given, value=None, detail={**given.detail, "error": why})


def _refused(why: str) -> Scored:
    return Scored(value=None, detail={"error": why})


def _number(value: object) -> tuple[float | None, str | None]:
    """(number, None), or (None, why it is none). None is no value, and no fault."""
    if value is None:
        return None, None
    if not isinstance(value, (bool, int, float)) and hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if not isinstance(value, (bool, int, float)):
        return None, f"{_shown(value)}, which is no number"
    try:
        number = float(value)
    except OverflowError:
        return None, "a whole number that is too large to average"
    if not math.isfinite(number):
        return None, str(number)
    return (number, None) if abs(number) <= LARGEST else (None, f"{number:g}, too large to average")


_NO_JSON: Any = object()


def _json(value: object) -> Json:
    """The value as JSON has it (numpy's scalars as numbers), or `_NO_JSON`."""
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=_other))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _NO_JSON


def _other(value: object) -> Json:
    """numpy's scalars as numbers, records and other mappings as loom writes them. Raises TypeError for what is none."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else plain(value)


def _shown(value: object) -> str:
    """A value for a message; its repr may be anything, or raise."""
    kind = type(value).__name__
    if isinstance(value, (str, int, float, complex, list, tuple, type(None))):
        try:
            text = repr(value)
        except (ValueError, RecursionError):
            return kind
        return f"{text[:SHOWN]}{'…' if len(text) > SHOWN else ''} ({kind})"
    return kind
