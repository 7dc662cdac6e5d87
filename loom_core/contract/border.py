"""Where values of plugins come in: what they gave is a record that can be averaged and kept, or says whose it is.

One function a record type. A score that is refused costs its sample that value, with the reason; it is never averaged,
never forced into its range, and never ends the run. Any other record that is refused is a PluginError that names the
plugin and the field. Knows records and declared ranges; reads no file.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from loom_core.contract.errors import LoomError, PluginError
from loom_core.contract.evidence import Rewritten
from loom_core.contract.guard import guarded, reason
from loom_core.contract.keys import plain
from loom_core.contract.protocols import Line, ModelCard
from loom_core.contract.shapes import misfit, shown
from loom_core.contract.types import (
    Finish,
    Generation,
    Json,
    KVUse,
    Prompt,
    Response,
    Sample,
    Saves,
    Scored,
    Task,
    Timing,
    Turn,
)

LARGEST = 1e100
"""Numbers beyond it overflow where they are summed or squared."""
SLACK = 1e-9
MOST_TOKENS = 10**9
"""No prompt and no answer has as many tokens."""
CLOCK_SLACK = 1e-3
"""Seconds by which two readings of one clock, made in two threads, may change places."""
REFUSED = "refused"
"""Marks a detail whose reason does not name the metric's distribution yet."""
LONGEST_NAME = 60


def scored(given: object, metric: str) -> Scored:
    """What a scorer of `metric` gave, as a score that can be kept; without a value, and with the reason, where it is
    none.

    numpy's scalars are numbers. Numbers in text, lists, complex and non-finite numbers are not; a detail that is no
    JSON costs the value as well.
    """
    try:
        with guarded(f"metric {metric}"):
            return _scored(given, metric)
    except LoomError as error:  # to look at it raised
        return _refused(f"metric {metric} returned a value that cannot be inspected: {reason(error)}")


def _scored(given: object, metric: str) -> Scored:
    if not isinstance(given, Scored):
        return _refused(f"metric {metric} returned {shown(given)}, not a Scored")
    value, why = _number(given.value)
    detail, extracted = _json(given.detail), _json(given.extracted)
    kept = dict(detail) if isinstance(detail, Mapping) else {}
    if why is None and (detail is _NO_JSON or not isinstance(detail, Mapping)):
        why = "a detail that is not JSON"
    if why is None and extracted is _NO_JSON:
        why = "an extracted answer that is not JSON"
    clean = Scored(value=value, extracted=None if extracted is _NO_JSON else extracted, detail=kept)
    if why is None:
        return clean
    return replace(clean, value=None, detail={**kept, **_because(f"the scorer returned {why} (metric {metric})")})


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
    with guarded(f"server {server}", "generate()"):
        right = isinstance(given, Response)
    if not right or not isinstance(given, Response):
        raise PluginError(f"server {server} returned {shown(given)}, not a Response")
    if not isinstance(given.key, str) or given.key not in asked:
        why = "each request is answered once, under its own key"
        raise PluginError(f"server {server} answered a request that is not open: {shown(given.key)}", why=why)
    return given.key


def answered(given: Response, server: str, sample: str) -> Response:
    """What a server gave for a request, as a response that can be recorded and averaged.

    A faulty one (a text that is not a text, an unknown finish, a count or a time below zero, times that run backwards,
    an answer with an error) becomes an error that names server and sample.
    """
    try:
        with guarded(f"server {server}"):
            clean = replace(given, **{name: _scalar(getattr(given, name)) for name in COUNTS + OPTIONAL_COUNTS})
            why = _fault(clean)
        if why is None:
            return clean
    except LoomError as error:
        why = f"a value that cannot be inspected ({reason(error)})"
    at = Timing(queued=0.0, started=0.0, first_token=None, ended=0.0)
    told = f"server {server} returned {why} (sample {sample}): the answer is not recorded"
    return Response(key=given.key, text="", finish="error", n_in=0, n_out=0, timing=at, error=told)


COUNTS = ("n_in", "n_out", "n_cached", "n_dropped")
OPTIONAL_COUNTS = ("n_reasoning", "peak_bytes")
TIMES = ("queued", "started", "first_token", "ended")


def _fault(given: Response) -> str | None:
    """Why a response cannot be recorded; None where it can."""
    if not isinstance(given.text, str):
        return f"{shown(given.text)} where a text was expected"
    if given.finish not in get_args(Finish):
        return f"the finish {shown(given.finish)}, which is not one of {', '.join(get_args(Finish))}"
    if given.finish != "error" and given.error is not None:
        return f"an answer ({given.finish}) with an error: {shown(given.error)}"
    if given.finish == "error" and not (isinstance(given.error, str) and given.error.strip()):
        return "an error without a reason"
    for name in (*COUNTS, *(name for name in OPTIONAL_COUNTS if getattr(given, name) is not None)):
        value, most = getattr(given, name), math.inf if name.endswith("bytes") else MOST_TOKENS
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            return f"{name}={shown(value)}, which is not a possible count"
    if given.cost is not None and not _at_least_zero(given.cost):
        return f"cost={shown(given.cost)}, which is not a price"
    if given.reasoning is not None and not isinstance(given.reasoning, str):
        return f"{shown(given.reasoning)} where the reasoning was expected"
    if not isinstance(given.notes, tuple) or not all(isinstance(note, str) for note in given.notes):
        return f"notes that are not a tuple of texts: {shown(given.notes)}"
    ids = given.token_ids
    if ids is not None and not (isinstance(ids, tuple) and all(isinstance(i, int) and i >= 0 for i in ids)):
        return f"token ids that are not a tuple of ids: {shown(ids)}"
    return _fault_of_timing(given.timing) or _fault_of_kv(given.kv)


def _fault_of_timing(given: object) -> str | None:
    """Why times cannot be kept: each is a finite number, and none lies before the one that it follows."""
    if not isinstance(given, Timing):
        return f"{shown(given)} where a Timing was expected"
    times = {name: getattr(given, name) for name in TIMES if name != "first_token" or given.first_token is not None}
    for name, value in times.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return f"timing.{name}={shown(value)}, which is not a time"
    order = list(times.items())
    for (before, earlier), (after, later) in itertools.pairwise(order):
        if later < earlier - CLOCK_SLACK:
            return f"times that run backwards: {after} lies {earlier - later:.6g} s before {before}"
    if not _at_least_zero(given.shared_seconds):
        return f"timing.shared_seconds={shown(given.shared_seconds)}, which is not a duration"
    if not isinstance(given.batch, int) or given.batch < 1:
        return f"timing.batch={shown(given.batch)}, which is not a number of requests"
    return None


def _fault_of_kv(given: object) -> str | None:
    """Why what a cache cost cannot be kept."""
    if given is None:
        return None
    if not isinstance(given, KVUse):
        return f"{shown(given)} where a KVUse was expected"
    if given.saves not in get_args(Saves):
        return f"kv.saves={shown(given.saves)}, which is not one of {', '.join(get_args(Saves))}"
    names = ("bytes_dense", "bytes_held", "kept", "tokens_held", "tokens_asked", "kept_asked", "bytes_asked")
    for name in names:
        value = getattr(given, name)
        if not (value is None and name not in names[:3]) and not _at_least_zero(value):
            return f"kv.{name}={shown(value)}, which is not a possible amount"
    return None


def _at_least_zero(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _scalar(value: object) -> Any:
    """numpy's and torch's whole numbers as Python's, which JSON can write."""
    if not isinstance(value, (int, float)) and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    return value


def tasks(given: object, owner: str, declared: Collection[str]) -> tuple[Task, ...]:
    """What a benchmark's `tasks` gave. declared: the names that its spec promises. Raises PluginError."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise _broken(owner, "tasks() did not return a sequence of tasks", "", f"got {shown(given)}")
    seen: set[str] = set()
    for task in given:
        name = getattr(task, "name", None)
        why = misfit(task, Task) or _task(task)
        if not why and name not in declared:
            why = "name: the benchmark does not declare this task"
        if not why and name in seen:
            why = "name: two tasks have it"
        if why:
            raise _broken(owner, "a task cannot be used", f"task {name}" if isinstance(name, str) else "", why)
        seen.add(task.name)
    return tuple(given)


def _task(task: Task) -> str | None:
    if not task.metrics:
        return "metrics: it names none"
    if len(set(task.metrics)) < len(task.metrics):
        return "metrics: one is named twice"
    limit = task.truncation.limit
    if limit is not None and not 1 <= limit <= MOST_TOKENS:
        return f"truncation: limit: {shown(limit)} is not between 1 and {MOST_TOKENS}"
    return _generation(task.generation)


def _generation(given: Generation) -> str | None:
    """What is wrong with limits that have the right types."""
    for name, least in (("max_tokens", 1), ("min_tokens", 0), ("repeats", 1), ("temperature", 0)):
        if (value := getattr(given, name)) < least:
            return f"generation: {name}: {value} is below {least}"
        if value > MOST_TOKENS:
            return f"generation: {name}: {shown(value)} is above {MOST_TOKENS}"
    return None if 0 < given.top_p <= 1 else f"generation: top_p: {given.top_p} is not a share above 0"


def sample(given: object, owner: str, task: str) -> Sample:
    """A sample of a task. Raises PluginError where a field is of another type, out of range or no JSON."""
    why = misfit(given, Sample)
    if why is None:
        assert isinstance(given, Sample)
        why = _sample(given)
        if why is None:
            return given
    name = getattr(given, "id", None)
    where = f"sample {name[:LONGEST_NAME]!r} of task {task}" if isinstance(name, str) else f"a sample of task {task}"
    raise _broken(owner, "a sample cannot be used", where, why)


def _sample(given: Sample) -> str | None:
    if not given.id:
        return "id: it is empty"
    if why := _prompt(given.prompt):
        return why
    if given.depth is not None and not 0 <= given.depth <= 1:
        return f"depth: {given.depth:g} is outside 0 to 1"
    for piece in given.evidence:
        if not 0 <= piece.segment < len(given.prompt.segments):
            return f"evidence: the prompt has no segment {piece.segment}"
        if not 0 <= piece.start <= piece.end <= len(given.prompt.segments[piece.segment].text):
            return f"evidence: segment {piece.segment} has no characters {piece.start} to {piece.end}"
    return None


def _prompt(prompt: Prompt) -> str | None:
    return None if any(segment.text for segment in prompt.segments) else "prompt: it is empty"


def turn(given: object, owner: str) -> Turn:
    """A turn that a follow-up, a strategy or a judged metric asks for. Raises PluginError."""
    why = misfit(given, Turn)
    if why is None:
        assert isinstance(given, Turn)
        why = _prompt(given.prompt) or _generation(given.generation)
        if why is None:
            return given
    raise _broken(owner, "a turn cannot be asked", "", why)


def lines(given: object, owner: str) -> list[Line]:
    """The lines of an official table. A value that is not finite is none. Raises PluginError."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise _broken(owner, "aggregate() did not return a sequence of lines", "", f"got {shown(given)}")
    made = []
    for line in given:
        if not isinstance(line, Line):
            raise _broken(owner, "aggregate() returned something other than lines", "", f"got {shown(line)}")
        value, why = _number(line.value)
        if why is not None and line.value == line.value and not _infinite(line.value):
            raise _broken(owner, "a line cannot be used", f"line {line.name}, {line.metric}", f"value: {why}")
        wrong = [f"{name}: {text}" for name, text in _counts(line) if text]
        if wrong:
            raise _broken(owner, "a line cannot be used", f"line {line.name}, {line.metric}", wrong[0])
        made.append(line if value is line.value else replace(line, value=value))
    return made


def _counts(line: Line) -> list[tuple[str, str]]:
    found = []
    for name, kind in (("name", str), ("metric", str), ("note", str), ("n", int), ("missing", int), ("digits", int)):
        value = getattr(line, name)
        if why := misfit(value, kind):
            found.append((name, why))
        elif isinstance(value, int) and value < 0:
            found.append((name, f"{value} is below 0"))
    return found


def _infinite(value: object) -> bool:
    return isinstance(value, float) and math.isinf(value)


def card(given: object, owner: str) -> ModelCard:
    """What a server's `describe` gave. Raises PluginError."""
    if not isinstance(given, ModelCard):
        raise _broken(owner, "describe() did not return a model card", "", f"got {shown(given)}")
    kinds = (("name", str), ("path", str), ("digest", str), ("window", int | None))
    for name, kind in (*kinds, ("kv_bytes_per_token", int | None), ("facts", Mapping[str, Any])):
        value = getattr(given, name)
        why = misfit(value, kind)
        if why is None and isinstance(value, int) and value < 1:
            why = f"{value} is below 1"
        if why:
            raise _broken(owner, "a model's card cannot be used", "", f"{name}: {why}")
    return given


def rewritten(given: object, owner: str) -> Prompt | Rewritten:
    """What a prompt augmentation made of a prompt. Raises PluginError."""
    why = misfit(given, Rewritten if isinstance(given, Rewritten) else Prompt)
    if why is None:
        assert isinstance(given, (Prompt, Rewritten))
        return given
    raise _broken(owner, "a rewritten prompt cannot be used", "", why)


def _broken(owner: str, what: str, where: str, why: str) -> PluginError:
    return PluginError(f"{owner}: {what}", where=where, why=why, hint="report it to its author, or leave it out")


def _refused(why: str) -> Scored:
    return Scored(value=None, detail=_because(why))


def _because(why: str) -> dict[str, Json]:
    return {"error": why, REFUSED: True}


def _number(value: object) -> tuple[float | None, str | None]:
    """(number, None), or (None, why it is none). None is not a value, and no fault."""
    if value is None:
        return None, None
    value = _scalar(value)
    if not isinstance(value, (bool, int, float)):
        return None, f"{shown(value)}, which is not a number"
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
