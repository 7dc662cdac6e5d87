"""What each file of a run folder holds: the shape of every record, by the file's name. Reads and writes nothing.

A run folder may come from anybody and may have been damaged. What is read of it is compared with these shapes in one
place (`store.read_json`, `store.read_lines`), so that nothing behind it meets a record of another kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal

from loom_core.contract.shapes import Check, misfit, shown
from loom_core.contract.types import Evidence, Job, KVUse, Role, SegmentKind, Timing

MOST = 2**53
LONGEST_NAME = 200
TABLE = Mapping[str, Any]
TEXTS = tuple[str, ...]


def count(value: Any) -> str | None:
    """A whole number from 0 that every JSON reader holds exactly."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST
    return None if fits else f"expected a count, got {shown(value)}"


def name(value: Any) -> str | None:
    """A name that may be part of a file's."""
    fits = isinstance(value, str) and value and len(value) <= LONGEST_NAME and not set(value) & {"/", "\0"}
    return None if fits and value not in (".", "..") else f"expected a name, got {shown(value)}"


def maybe(kind: Any) -> Check:
    """null, or what fits `kind`."""
    return lambda value: None if value is None else misfit(value, kind)


def listed(kind: Any) -> Check:
    """A list of what fits `kind`."""

    def check(value: Any) -> str | None:
        if not isinstance(value, list):
            return f"expected a list, got {shown(value)}"
        found = ((i, misfit(item, kind)) for i, item in enumerate(value))
        return next((f"item {i}: {why}" for i, why in found if why), None)

    return check


def table(kind: Any) -> Check:
    """An object of what fits `kind`, by any names."""

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return f"expected an object, got {shown(value)}"
        found = ((key, misfit(item, kind)) for key, item in value.items())
        return next((f"{key[:40]}: {why}" for key, why in found if why), None)

    return check


def record(required: Mapping[str, Any], optional: Mapping[str, Any], *, closed: bool = False) -> Check:
    """An object with these fields. closed: and no others."""
    kinds = {**required, **optional}

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return f"expected an object, got {shown(value)}"
        for field in required:
            if field not in value:
                return f"{field} is missing"
        for field, item in value.items():
            if field not in kinds:
                if closed:
                    return f"{field[:40]} is unknown"
            elif why := misfit(item, kinds[field]):
                return f"{field}: {why}"
        return None

    return check


def stored(kind: Any, **other: Any) -> Check:
    """A dataclass as JSON, which is made again of just its fields. other: fields that are stored otherwise."""
    import typing

    hints = typing.get_type_hints(kind)
    kinds = {f.name: count if hints[f.name] is int else hints[f.name] for f in fields(kind)} | other
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING} - set(other)
    return record(
        {field: kinds[field] for field in kinds if field in needed},
        {field: kinds[field] for field in kinds if field not in needed},
        closed=True,
    )


METRIC = record(
    {"name": name, "version": name, "low": float | None, "high": float | None, "higher_is_better": bool}, {}
)
LEVEL = record(
    {"level": str, "n": count, "n_over": count, "n_skipped": count},
    {"tokens_min": maybe(count), "tokens_max": maybe(count)},
)
TASK = record(
    {
        "name": str,
        "benchmark": str,
        "benchmark_version": str,
        "distribution": str,
        "options": TABLE,
        "version": str,
        "capability": str,
        "metrics": listed(METRIC),
        "chat": str,
        "generation": TABLE,
        "truncation": TABLE,
        "n_samples": count,
        "levels": listed(LEVEL),
    },
    {
        "language": str,
        "chance": float | None,
        "judge": maybe(TABLE),
        "licence": str,
        "own_prompt": bool,
        "unavailable": str | None,
        "refused": maybe(record({"what": str}, {"type": str, "where": str, "why": str, "hint": str})),
        "extract": bool,
        "n_bad_records": count,
        "scored_version": str,
    },
)
REFUSAL = record({"what": str}, {"type": str, "where": str, "why": str, "hint": str})
REFUSED_ARMS = listed(record({"name": str, "why": str}, {"refused": REFUSAL}))
PART = record(
    {"name": str, "version": str, "kind": str, "options": TABLE, "text": str},
    {"saves": str, "query_aware": bool, "phase": str, "extends_context": bool},
)
ARM = record({"name": str, "parts": listed(PART)}, {"system": str})
SIZES = record(
    {"arms": table(record({"n": count, "tokens_in": count, "tokens_out_most": count}, {}))},
    {
        "histogram": listed(record({"over": float, "up_to": float | None, "n": count}, {})),
        "batch": count,
        "batch_kv_bytes": maybe(count),
    },
)
_PLAN = record(
    {
        "config": TABLE,
        "config_digest": str,
        "model": record(
            {"name": str, "digest": str, "window": maybe(count), "kv_bytes_per_token": maybe(count), "facts": TABLE},
            {"path": str, "tokenizer": str | None, "template": str | None},
        ),
        "server": record(
            {"name": str, "version": str, "options": TABLE, "model_options": TABLE},
            {"distribution": str, "sees_references": bool},
        ),
        "protocol": str,
        "tasks": listed(TASK),
        "arms": listed(ARM),
        "n_jobs": count,
        "n_samples": count,
    },
    {
        "overlength": record(
            {"policy": str, "n_over": count, "longest": count, "example": str, "estimated": bool}, {"n_refused": count}
        ),
        "bos": listed(record({"found": count, "expected": count, "n": count}, {})),
        "sizes": SIZES,
        "refused_arms": REFUSED_ARMS,
        "longest_kv_bytes": maybe(count),
        "told": TEXTS,
        "notes": TEXTS,
        "systems": listed(record({"name": str, "model": str, "server": str}, {})),
    },
)


def plan(value: Any) -> str | None:
    """plan.json: no task and no arm stands in it twice."""
    if why := _PLAN(value):
        return why
    for group in ("tasks", "arms"):
        names = [row["name"] for row in value[group]]
        if not names and group == "arms":
            return "arms: there is none"
        if len(set(names)) < len(names):
            return f"{group}: two have one name"
    for task in value["tasks"]:
        if not task["metrics"]:
            return f"tasks: {task['name'][:40]} has no metric"
        if any(m["low"] is not None and m["high"] is not None and m["low"] >= m["high"] for m in task["metrics"]):
            return f"tasks: {task['name'][:40]}: a metric's range is empty"
    return None


BATCH = record({"added": listed(count), "seconds": float | None}, {})
_ANYTIME = record(
    {
        "strata": listed(record({"task": str, "level": str | None, "n_units": count, "n_questions": count}, {})),
        "batches": listed(BATCH),
        "spent_seconds": float,
        "until": float | None,
    },
    {"budget_seconds": float | None, "given_up": bool, "stopped": str | None, "seed": int},
)


def anytime(value: Any) -> str | None:
    """How a subset was drawn: each batch says for each stratum how much it added."""
    if why := _ANYTIME(value):
        return why
    if any(len(batch["added"]) != len(value["strata"]) for batch in value["batches"]):
        return "batches: one is of other strata"
    if any(not 1 <= row["n_units"] <= row["n_questions"] for row in value["strata"]):
        return "strata: one is empty"
    return None


MANIFEST = record(
    {},
    {
        "loom": str,
        "created": str,
        "command": TEXTS,
        "config": TABLE,
        "config_digest": str,
        "seed": maybe(count),
        "versions": maybe(Mapping[str, str]),
        "git": maybe(record({"commit": str, "dirty": bool}, {})),
        "hardware": maybe(TABLE),
        "data": maybe(listed(TABLE)),
        "workers": listed(TABLE),
        "environments": listed(TABLE),
        "events": TEXTS,
        "refused_arms": REFUSED_ARMS,
        "anytime": maybe(anytime),
        "systems": table(record({"folder": name}, {"config_digest": str})),
    },
)
DELTA = record(
    {"value": float | None, "low": float | None, "high": float | None},
    {
        "interval": str | None,
        "n_pairs": maybe(count),
        "p": float | None,
        "test": str | None,
        "p_adjusted": float | None,
    },
)
LINE = record(
    {"name": str, "metric": str, "value": float | None, "n": count},
    {
        "missing": count,
        "digits": count,
        "note": str,
        "headline": bool,
        "low": float | None,
        "high": float | None,
        "interval": str | None,
        "delta": maybe(DELTA),
    },
)


def _lines(value: Any) -> str | None:
    """The lines of an arm's table, or why there are none."""
    return misfit(value, record({"error": str}, {}) if isinstance(value, dict) else listed(LINE))


JUDGE = record(
    {
        "judge": str | None,
        "calls": count,
        "asked": count,
        "failed": count,
        "n_in": count,
        "n_out": count,
        "seconds": float,
        "cost": float | None,
        "metrics": table(record({"n": count, "n_without_value": count, "reasons": table(count)}, {"calls": count})),
    },
    {"identity": maybe(TABLE)},
)
SEGMENT = record({"kind": SegmentKind, "role": Role}, {"text": str, "stored": str, "apart": bool}, closed=True)
SAMPLE = record(
    {
        "id": str,
        "task": str,
        "prompt": record({"segments": listed(SEGMENT)}, {"digest": str}),
        "references": listed(Any),
        "negatives": TEXTS,
        "documents": TEXTS,
        "evidence": listed(stored(Evidence)),
    },
    {
        "level": str | None,
        "length": maybe(count),
        "depth": float | None,
        "cluster": str | None,
        "group": str | None,
        "meta": TABLE,
    },
    closed=True,
)
_ASKED: Mapping[str, Any] = {
    "job": str,
    "step": count,
    "finish": Literal["stop", "length", "error"],
    "key": str,
    "text": str,
    "n_in": count,
    "n_out": count,
    "timing": stored(Timing),
    "error": str | None,
}
_BESIDE: Mapping[str, Any] = {
    "turn": maybe(count),
    "sample": str,
    "task": str,
    "arm": str,
    "repeat": count,
    "protocol": str,
    "prompt_digest": str | None,
    "bos": maybe(count),
    "cut": TEXTS,
    "answer": str | None,
    "prepared_seconds": float,
    "rewriting": maybe(record({}, {"tokens_before": maybe(count), "tokens_after": maybe(count)})),
    "rewriting_cost": maybe(
        record(
            {"seconds": float, "index_seconds": float, "calls": count, "read_tokens": count, "cost": float | None},
            {},
            closed=True,
        )
    ),
    "evidence": maybe(record({"n": count, "rewritten": count, "final": count, "share": float}, {}, closed=True)),
    "token_ids": tuple[int, ...] | None,
    "reasoning": str | None,
    "n_reasoning": maybe(count),
    "n_cached": count,
    "n_dropped": count,
    "cost": float | None,
    "kv": maybe(stored(KVUse)),
    "peak_bytes": maybe(count),
    "notes": TEXTS,
}
CALL = record({**_ASKED, "last": bool}, _BESIDE)
JUDGEMENT = record(_ASKED, _BESIDE)
"""A judge's call: it belongs to a score, not to a conversation that could end."""
JOB = stored(Job)
SCORE = record({"key": str}, {"metric": str, "metric_version": str, "detail": maybe(TABLE)})

WHOLE: Mapping[str, Any] = {
    "plan.json": plan,
    "manifest.json": MANIFEST,
    "official.json": table(table(_lines)),
    "unscored.json": table(table(count)),
    "judge.json": JUDGE,
}
"""Files that hold one record."""
BY_LINE: Mapping[str, Any] = {"samples.jsonl": SAMPLE, "responses.jsonl": CALL, "judgements.jsonl": JUDGEMENT}
"""Files that hold a record on each line; scores have a file for each metric."""


def of_line(file: str) -> Any:
    """The shape of a file's lines; None where it is not a file of a run."""
    return SCORE if file.startswith("scores-") else BY_LINE.get(file)
