"""Which settings differ between two runs: of the model, the server, the tasks, the arms, the prompts and the machine.

Reads plans and manifests as JSON and compares them leaf by leaf. Knows no score.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from loom_core.contract.keys import canonical
from loom_core.contract.records import Manifest, Plan
from loom_core.contract.types import Json

ABSENT = "(absent)"


class Knob(NamedTuple):
    """A setting that differs. asked: it is part of what was asked; else it is how or where the run was carried out."""

    group: str
    name: str
    first: Json
    second: Json
    asked: bool


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Knob]:
    """The settings in which two runs (see `settings`) differ, in the order of groups."""
    found = []
    for group in dict.fromkeys([*first, *second]):
        one_side, other_side = first.get(group, {}), second.get(group, {})
        mine, theirs = _side(one_side, other_side), _side(other_side, one_side)
        for name in dict.fromkeys([*mine, *theirs]):
            one, other = mine.get(name, ABSENT), theirs.get(name, ABSENT)
            if canonical(one) != canonical(other):
                found.append(Knob(group, name, one, other, group not in CIRCUMSTANCES))
    return found


def _side(mine: Mapping[str, Json], theirs: Mapping[str, Json]) -> dict[str, Json]:
    """The leaves of one side; of what only one side has (an arm, a task), its presence alone."""
    present: dict[str, Json] = {}
    for name, value in mine.items():
        if name not in theirs and isinstance(value, Mapping):
            present[name] = "(present)"
        else:
            present |= _leaves(value, name)
    return present


CIRCUMSTANCES = frozenset(("code", "versions", "machine"))
"""Groups that no run asks for."""


def settings(plan: Plan, manifest: Manifest) -> dict[str, Json]:
    """What a run was made with, by group: only what may explain a difference of scores."""
    model, server = plan["model"], plan["server"]
    tokenizer = {"tokenizer": model.get("tokenizer"), "template": model.get("template")}
    return {
        "settings": {k: v for k, v in (plan.get("config") or {}).items() if k not in ("benchmarks", "accel", "model")},
        "model": {k: v for k, v in model.items() if k not in ("path", "tokenizer", "template")},
        "tokenizer": tokenizer,
        "server": server,
        "prompts": {"bos": _bos(plan), "overlength": _overlength(plan), "notes": plan.get("notes") or []},
        "tasks": {task["name"]: _task(task) for task in plan["tasks"]},
        "arms": {arm["name"]: _arm(arm) for arm in plan["arms"]},
        "data": {row["pin"]: _file(row) for row in manifest.get("data") or [] if "pin" in row},
        "code": {"loom": manifest.get("loom"), **(manifest.get("git") or {})},
        "versions": manifest.get("versions") or {},
        "machine": {**(manifest.get("hardware") or {}), "workers": _workers(manifest)},
    }


def _bos(plan: Plan) -> list[str]:
    return [f"{row['n']} prompts with {row['found']} of {row['expected']} BOS" for row in plan.get("bos") or []]


def _overlength(plan: Plan) -> Json:
    over = plan.get("overlength") or {}
    return {key: over.get(key) for key in ("policy", "n_over", "longest", "estimated")}


def _task(task: Mapping[str, Any]) -> dict[str, Json]:
    names = ("version", "benchmark_version", "distribution", "options", "generation", "truncation", "chat", "extract")
    levels = {
        row["level"]: [row["n"], row.get("tokens_min"), row.get("tokens_max")] for row in task.get("levels") or []
    }
    metrics = {row["name"]: row["version"] for row in task.get("metrics") or []}
    known = {name: task.get(name) for name in names}
    return known | {"metrics": metrics, "n_samples": task.get("n_samples"), "levels": levels}


def _arm(arm: Mapping[str, Any]) -> Json:
    return {f"{i + 1}:{part['name']}": part for i, part in enumerate(arm["parts"])} or {"parts": 0}


def _file(row: Mapping[str, Any]) -> dict[str, Json]:
    return {key: value for key, value in row.items() if key in ("sha256", "n_bytes", "extract")}


def _workers(manifest: Manifest) -> Json:
    """The kinds of workers, without process ids and numbers."""
    rows = [{k: v for k, v in row.items() if k not in ("pid", "number")} for row in manifest.get("workers") or []]
    return {"kinds": [json.loads(kind) for kind in sorted(set(map(canonical, rows)))]}


def _leaves(value: Json, name: str = "") -> Iterator[tuple[str, Json]]:
    """The leaves of nested objects by dotted name; lists are leaves."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif name:
        yield name, value


def shown(value: Json) -> str:
    """A value as a table shows it."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(item, (str, int, float)) for item in value):
        return ", ".join(map(str, value)) or "(none)"
    return "none" if value is None else canonical(value)
