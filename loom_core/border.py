"""Where values of plugins come in: what they gave is a record that can be averaged and kept, or says whose it is.

One function a record type. A value that is refused costs its sample that value, with the reason; it is never averaged,
never forced into its range, and never ends the run. Knows records and declared ranges; reads no file.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, get_args

from loom_core.errors import PluginError
from loom_core.keys import plain
from loom_core.types import Finish, Json, KVUse, Response, Saves, Scored, Timing

LARGEST = 1e100
"""Numbers beyond it overflow where they are summed or squared."""
SLACK = 1e-9
SHOWN = 60
MOST_TOKENS = 10**9
"""No prompt and no answer has as many tokens."""
CLOCK_SLACK = 1e-3
"""Seconds by which two readings of one clock, made in two threads, may change places."""
REFUSED = "refused"
"""Marks a detail whose reason does not name the metric's distribution yet."""


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
    return replace(clean, value=None, detail={**kept, **_because(f"the scorer gave {why} (metric {metric})")})


def in_range(given: Scored, metric: str, low: float | None, high: float | None, owner: str) -> Scored:
    """The score; without its value where that is outside the range that the metric declares (None: no end).

    owner: the distribution that has the metric. It is named in this refusal and in those made before (`scored`).
    """
    value = given.value
    if value is None:
        if not given.detail.get(REFUSED):
            return given
        told = {key: one for key, one in given.detail.items() if key != REFUSED}
        return replace(given, detail={**told, "error": f"{told['error']}, of {owner}"})
    slack = SLACK * max(1.0, *(abs(end) for end in (low, high) if end is not None and math.isfinite(end)))
    if (low is None or value >= low - slack) and (high is None or value <= high + slack):
        return given
    ends = f"{'-∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"
    why = f"metric {metric} of {owner} gave {value:g}, outside its declared range {ends}"
    return replace(given, value=None, detail={**given.detail, "error": why})


def request_of(given: object, server: str, asked: Container[str]) -> str:
    """The key of the request that a server answers. Raises PluginError where that is none of those `asked`."""
    if not isinstance(given, Response):
        raise PluginError(f"server {server} gave {_shown(given)} where a Response is expected")
    if not isinstance(given.key, str) or given.key not in asked:
        why = "each request is answered once, under its own key"
        raise PluginError(f"server {server} answered a request that is not open: {_shown(given.key)}", why=why)
    return given.key


def answered(given: Response, server: str, sample: str) -> Response:
    """What a server gave for a request, as a response that can be recorded and averaged.

    One that is none (a text that is no text, an unknown finish, a count or a time below zero, times that run backwards,
    an answer with an error) becomes an error that names server and sample.
    """
    clean = replace(given, **{name: _scalar(getattr(given, name)) for name in COUNTS + OPTIONAL_COUNTS})
    why = _fault(clean)
    if why is None:
        return clean
    at = Timing(queued=0.0, started=0.0, first_token=None, ended=0.0)
    error = f"server {server} gave {why} (sample {sample}): the answer is not recorded"
    return Response(key=given.key, text="", finish="error", n_in=0, n_out=0, timing=at, error=error)


COUNTS = ("n_in", "n_out", "n_cached", "n_dropped")
OPTIONAL_COUNTS = ("n_reasoning", "peak_bytes")
TIMES = ("queued", "started", "first_token", "ended")


def _fault(given: Response) -> str | None:
    """Why a response cannot be recorded; None where it can."""
    if not isinstance(given.text, str):
        return f"{_shown(given.text)} where a text is expected"
    if given.finish not in get_args(Finish):
        return f"the finish {_shown(given.finish)}, which is none of {', '.join(get_args(Finish))}"
    if given.finish != "error" and given.error is not None:
        return f"an answer ({given.finish}) with an error: {_shown(given.error)}"
    if given.finish == "error" and not (isinstance(given.error, str) and given.error.strip()):
        return "an error without a reason"
    for name in (*COUNTS, *(name for name in OPTIONAL_COUNTS if getattr(given, name) is not None)):
        value, most = getattr(given, name), math.inf if name.endswith("bytes") else MOST_TOKENS
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            return f"{name}={_shown(value)}, which is no possible count"
    if given.cost is not None and not _at_least_zero(given.cost):
        return f"cost={_shown(given.cost)}, which is no price"
    if given.reasoning is not None and not isinstance(given.reasoning, str):
        return f"{_shown(given.reasoning)} where the reasoning is expected"
    if not isinstance(given.notes, tuple) or not all(isinstance(note, str) for note in given.notes):
        return f"notes that are no tuple of texts: {_shown(given.notes)}"
    ids = given.token_ids
    if ids is not None and not (isinstance(ids, tuple) and all(isinstance(i, int) and i >= 0 for i in ids)):
        return f"token ids that are no tuple of ids: {_shown(ids)}"
    return _fault_of_timing(given.timing) or _fault_of_kv(given.kv)


def _fault_of_timing(given: object) -> str | None:
    """Why times cannot be kept: each is a finite number, and none lies before the one that it follows."""
    if not isinstance(given, Timing):
        return f"{_shown(given)} where a Timing is expected"
    times = {name: getattr(given, name) for name in TIMES if name != "first_token" or given.first_token is not None}
    for name, value in times.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return f"timing.{name}={_shown(value)}, which is no time"
    order = list(times.items())
    for (before, earlier), (after, later) in itertools.pairwise(order):
        if later < earlier - CLOCK_SLACK:
            return f"times that run backwards: {after} lies {earlier - later:.6g} s before {before}"
    if not _at_least_zero(given.shared_seconds):
        return f"timing.shared_seconds={_shown(given.shared_seconds)}, which is no duration"
    if not isinstance(given.batch, int) or given.batch < 1:
        return f"timing.batch={_shown(given.batch)}, which is no number of requests"
    return None


def _fault_of_kv(given: object) -> str | None:
    """Why what a cache cost cannot be kept."""
    if given is None:
        return None
    if not isinstance(given, KVUse):
        return f"{_shown(given)} where a KVUse is expected"
    if given.saves not in get_args(Saves):
        return f"kv.saves={_shown(given.saves)}, which is none of {', '.join(get_args(Saves))}"
    names = ("bytes_dense", "bytes_held", "kept", "tokens_held", "tokens_asked", "kept_asked", "bytes_asked")
    for name in names:
        value = getattr(given, name)
        if not (value is None and name not in names[:3]) and not _at_least_zero(value):
            return f"kv.{name}={_shown(value)}, which is no possible amount"
    return None


def _at_least_zero(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _scalar(value: object) -> Any:
    """numpy's and torch's whole numbers as Python's, which JSON can write."""
    if not isinstance(value, (int, float)) and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    return value


def _refused(why: str) -> Scored:
    return Scored(value=None, detail=_because(why))


def _because(why: str) -> dict[str, Json]:
    return {"error": why, REFUSED: True}


def _number(value: object) -> tuple[float | None, str | None]:
    """(number, None), or (None, why it is none). None is no value, and no fault."""
    if value is None:
        return None, None
    value = _scalar(value)
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
