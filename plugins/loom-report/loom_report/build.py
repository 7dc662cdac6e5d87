"""report.json: the one source of every rendering. Puts together what a run folder's plan, manifest and cells say.

Schema 1, documented in `SCHEMA`. Knows the meaning of a report; knows no table, no page and no terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, cast

from loom_core.contract.errors import RunError
from loom_core.contract.records import ArmRow, Manifest, Plan, TaskRow
from loom_core.contract.types import Json
from loom_core.prompting.thinking import UNFINISHED
from loom_core.run.absent import refused_arms
from loom_core.run.store import RunFolder, read_json
from loom_report import cells as cell_module, ledger as ledger_module, length_depth as views
from loom_report.ledger import Ledger
from loom_report.records import CellRow, Report, ReportArm, ReportLevel, ReportTask, StateRow
from loom_report.render.banners import banners
from loom_report.statistics import stats

SCHEMA = 1
"""Keys of schema 1.

run: how it was made. model, server, protocol, overlength, bos: as planned; systems: of a study, {name, model, server}
each, the first one's are `model` and `server`. state: counts of answers. banners: what a
reader must know before any number, {kind: error | warning | note, text}. arms, tasks: what was compared, with labels.
cells: task × level × arm; totals: task × arm over all levels (level null); both with `scores` (one a metric, the first
is primary: score, 95 % interval, n, bounds (the mean with all unscored answers wrong, and right; null where there are
none), delta to the baseline with Holm-adjusted p over all cells of that list), `cost`,
and `evidence` (recall and where answers were lost, see `losses.evidence`; null where samples name no evidence).
effective_lengths, grids (level × depth), pareto, retention, capabilities: what the pictures show. official: the
authors' own tables, by benchmark and arm. anytime: how a subset was drawn. judge: who judged, its calls, tokens and
cost (in no `cost` of a cell). unscored: why values are missing, by metric.
Values keep their metric's scale; times are seconds, sizes bytes.
Denominators: n + n_unscored + n_error + n_missing = n_planned; n_skipped is on top.
"""


def build(folder: RunFolder) -> tuple[Report, Ledger]:
    """The report of a run folder and the ledger it was made from. Raises RunError where the folder holds no plan."""
    if not folder.prepared:
        raise RunError(
            "there is nothing to report",
            where=str(folder.path),
            why="it holds no plan.json: no run was prepared in it"
            if folder.path.is_dir()
            else "there is no such folder",
            hint="give the folder of a run, e.g. `loom report runs/NAME`",
        )
    plan: Plan = read_json(folder.plan)
    manifest: Manifest = read_json(folder.manifest) if folder.manifest.exists() else cast(Manifest, {})
    ledger = ledger_module.read(folder, plan)
    cells, totals = cell_module.build(ledger)
    report: Report = {
        "schema": SCHEMA,
        "name": folder.path.resolve().name,
        "run": _run(manifest),
        "config_digest": plan.get("config_digest"),
        "model": {key: value for key, value in plan["model"].items() if key != "path"},
        "server": plan["server"],
        "systems": list(plan.get("systems") or ()),
        "refused_arms": refused_arms(plan, manifest),
        "protocol": plan["protocol"],
        "overlength": plan.get("overlength"),
        "bos": plan.get("bos"),
        "baseline": cell_module.BASELINE,
        "state": _state(ledger, totals),
        "banners": [],
        "arms": [_arm(arm, totals) for arm in plan["arms"]],
        "tasks": [_task(ledger, task, totals) for task in plan["tasks"]],
        "cells": cells,
        "totals": totals,
        "effective_lengths": views.effective_lengths(ledger, cells),
        "grids": views.grids(ledger),
        "official": _official(folder, ledger),
        "anytime": manifest.get("anytime"),
        "judge": read_json(folder.judge) if folder.judge.exists() else None,
        "unscored": read_json(folder.unscored) if folder.unscored.exists() else {},
        "notes": list(plan.get("notes") or ()),
        "told": list(plan.get("told") or ()),
        "pareto": [],
        "retention": [],
        "capabilities": [],
    }
    report["notes"] += _on_thinking(report["state"])
    report["pareto"] = [row for task in report["tasks"] for row in _pareto(report, task)]
    report["retention"] = [row for task in report["tasks"] for row in _retention(report, task)]
    report["capabilities"] = _capabilities(report)
    report["banners"] = banners(report, ledger)
    clean: Report = _encodable(report)
    return clean, ledger


def _on_thinking(state: Mapping[str, Json]) -> list[str]:
    """What thinking took, and the answers that it left empty."""
    notes = []
    if tokens := state["tokens_thinking"]:
        notes.append(f"{tokens} tokens of thinking were split off before scoring")
    if n := state["n_unfinished"]:
        notes.append(f"{n} of {state['n_answered']} answers are empty: {UNFINISHED.partition(':')[0]}")
    return notes


def _run(manifest: Manifest) -> dict[str, Json]:
    """How the run was made. Of the program that was called only the name: its folder is the author's own business."""
    names = ("loom", "created", "command", "seed", "versions", "git", "hardware", "data", "workers")
    run: dict[str, Json] = {name: manifest.get(name) for name in names}
    if run["command"]:
        program, *arguments = run["command"]
        run["command"] = [PurePath(program).name, *arguments]
    return run


def _official(folder: RunFolder, ledger: Ledger) -> Json:
    """The authors' tables; none of a stratified subset, whose rows their rules would count alike."""
    tables = read_json(folder.official) if folder.official.exists() else {}
    if ledger.subset is None:
        return tables
    reason = "not made of a subset: the authors' rule counts every planned question alike"
    return {name: {arm: {"error": reason} for arm in arms} for name, arms in tables.items()}


def _encodable(value: Json) -> Json:
    """The value with lone surrogates (a model or an error may hold them) replaced: every rendering is UTF-8."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, (list, tuple)) else value


COUNTS = (
    *("n_planned", "n_answered", "n_error", "n_missing", "n_skipped", "n_truncated", "n_cut_short", "n_unfinished"),
    *("n_empty", "n_empty_reasoned", "tokens_thinking", "tokens_dropped"),
)
"""What a run's state sums over its totals."""


def _state(ledger: Ledger, totals: Sequence[CellRow]) -> StateRow:
    counts: Sequence[Mapping[str, Any]] = totals
    state: dict[str, Json] = {name: sum(row[name] for row in counts) for name in COUNTS}
    state["n_unscored"] = sum(row["scores"][0]["n_unscored"] for row in totals if row["scores"])
    state["n_not_scored_yet"] = min(state["n_unscored"], _n_not_scored_yet(ledger))
    state["n_invalid_scores"] = ledger.n_invalid
    state["complete"] = bool(totals) and state["n_answered"] == state["n_planned"]
    return cast(StateRow, state)


def _n_not_scored_yet(ledger: Ledger) -> int:
    """Answers that no scoring has seen: their first metric has neither a value nor a reason for none."""
    n = 0
    for task in ledger.plan["tasks"]:
        if not task["metrics"]:
            continue
        first = task["metrics"][0]
        seen = ledger.values.get((first["name"], first["version"]), {})
        rows = [answer for key, found in ledger.answers.items() if key[0] == task["name"] for answer in found]
        n += sum(answer.state == "answered" and answer.key not in seen for answer in rows)
    return n


def _arm(arm: ArmRow, totals: Sequence[CellRow]) -> ReportArm:
    """An arm with its labels. saves: what its methods declare; measured_saves: what its responses say."""
    parts = arm["parts"]
    declared = {part.get("saves", "none") for part in parts}
    saves = "simulated" if "simulated" in declared else "real" if "real" in declared else "none"
    kv = [row["cost"]["kv"] for row in totals if row["arm"] == arm["name"] and row["cost"]["kv"]]
    return {
        "name": arm["name"],
        "baseline": arm["name"] == cell_module.BASELINE,
        "system": arm.get("system"),
        "parts": parts,
        "saves": saves,
        "measured_saves": sorted({label for use in kv for label in use["saves"]}),
        "query_aware": any(part.get("query_aware") for part in parts),
        "extends_context": any(part.get("extends_context") for part in parts),
        "method": "+".join(part["name"] for part in parts) or arm["name"],
        "family": "+".join(_without_budget(part) for part in parts) or arm["name"],
    }


def _without_budget(part: Mapping[str, Json]) -> str:
    options = {key: value for key, value in (part.get("options") or {}).items() if key != "budget"}
    return str(part["name"]) + "".join(f",{key}={value}" for key, value in sorted(options.items()))


def _task(ledger: Ledger, task: TaskRow, totals: Sequence[CellRow]) -> ReportTask:
    """A task as planned, with its levels in order of length, whether its scores are 0/1, and what its n can find."""
    metrics = cell_module.metrics_of(ledger, task)
    pairs = [
        row["scores"][0]["delta"]["n_pairs"]
        for row in totals
        if row["task"] == task["name"] and row["scores"] and row["scores"][0]["delta"]
    ]
    primary = metrics[0] if metrics else None
    loss = stats.detectable_loss(min(pairs)) if pairs and primary and primary.binary else None
    levels: list[ReportLevel] = []
    for level in cell_module.levels_of(ledger, task["name"]):
        lengths = [q.length for q in ledger.asked(task["name"], level) if q.length is not None]
        n, low, high = len(ledger.asked(task["name"], level)), min(lengths, default=None), max(lengths, default=None)
        levels.append({"level": level, "n": n, "tokens_min": low, "tokens_max": high})
    return {
        **task,
        "levels": levels,
        "primary": primary.name if primary else None,
        "binary": primary.binary if primary else None,
        "span": primary.span if primary else 1.0,
        "detectable_loss": loss * primary.span if loss is not None and primary else None,
        "n_pairs": min(pairs) if pairs else 0,
    }


def rows_of(rows: Sequence[Mapping[str, Any]], task: str, **wanted: Json) -> list[Mapping[str, Any]]:
    """The rows of a task, with these values."""
    return [r for r in rows if r["task"] == task and all(r[key] == value for key, value in wanted.items())]


def _pareto(report: Report, task: ReportTask) -> Iterator[dict[str, Json]]:
    """Score, memory and latency of each arm over the same answers, and whether an arm is on the front of the three.

    Arms whose savings are simulated hold no less memory than dense: they are shown, and are never on the front.
    """
    simulated = {arm["name"] for arm in report["arms"] if arm["saves"] == "simulated"}
    better = not task["metrics"] or task["metrics"][0].get("higher_is_better", True)
    points = []
    for row in rows_of(report["totals"], task["name"]):
        cost = row["cost"]
        if not row["scores"] or row["scores"][0]["score"] is None:
            continue
        points.append(
            {
                "task": task["name"],
                "arm": row["arm"],
                "score": row["scores"][0]["score"],
                "low": row["scores"][0]["low"],
                "high": row["scores"][0]["high"],
                "bytes_held": cost["kv"]["bytes_held"] if cost["kv"] else None,
                "seconds": cost["seconds"] if cost["comparable"] else None,
                "ranked": row["arm"] not in simulated,
            }
        )
    for point in points:
        rivals = [other for other in points if other is not point and other["ranked"]]
        point["front"] = point["ranked"] and not any(_dominates(rival, point, better) for rival in rivals)
        yield point


def _dominates(one: Mapping[str, Json], other: Mapping[str, Json], higher_is_better: bool) -> bool:
    """True if `one` is nowhere worse and somewhere better; unknown costs are not compared."""
    sign = -1 if higher_is_better else 1
    pairs = [(sign * one["score"], sign * other["score"])]
    pairs += [(one[k], other[k]) for k in ("bytes_held", "seconds") if one[k] is not None and other[k] is not None]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _retention(report: Report, task: ReportTask) -> Iterator[dict[str, Json]]:
    """Per method with several budgets: the share of the baseline's score that is kept, against compression.

    A ratio of two scores of the same questions, without an interval: the paired difference to the baseline has one.
    """
    totals = {row["arm"]: row for row in rows_of(report["totals"], task["name"]) if row["scores"]}
    base = totals.get(report["baseline"])
    if base is None or not base["scores"][0]["score"] or base["scores"][0]["score"] <= 0:
        return
    dense = base["scores"][0]["score"]
    families: dict[str, list[dict[str, Json]]] = {}
    for arm in report["arms"]:
        row = totals.get(arm["name"])
        kv = row["cost"]["kv"] if row else None
        if arm["baseline"] or row is None or kv is None or not kv["kept"] or row["scores"][0]["score"] is None:
            continue
        share = {"retention": row["scores"][0]["score"] / dense}
        families.setdefault(arm["family"], []).append(
            {"arm": arm["name"], "kept": kv["kept"], "compression": 1 / kv["kept"], **share}
        )
    for family, points in families.items():
        if len({round(point["kept"], 6) for point in points}) > 1:
            ordered = sorted(points, key=lambda point: point["compression"])
            yield {"task": task["name"], "method": family, "points": ordered}


def _capabilities(report: Report) -> list[dict[str, Json]]:
    """Per capability and arm, the mean over tasks of the primary score within its metric's range, 0 worst to 1 best.

    An arm without a score in one of the tasks has none: it would be the mean of other tasks than its neighbours'.
    """
    found: dict[str, list[ReportTask]] = {}
    for task in report["tasks"]:
        low, high = (task["metrics"][0]["low"], task["metrics"][0]["high"]) if task["metrics"] else (None, None)
        bounded = low is not None and high is not None and high > low
        if bounded and task.get("capability") and not task.get("unavailable"):
            found.setdefault(task["capability"], []).append(task)
    rows = []
    for capability, tasks in found.items():
        shares = {}
        for arm in report["arms"]:
            values = [_share_of_range(report, task, arm["name"]) for task in tasks]
            known = [value for value in values if value is not None]
            shares[arm["name"]] = sum(known) / len(known) if len(known) == len(values) else None
        rows.append({"capability": capability, "tasks": [task["name"] for task in tasks], "arms": shares})
    return rows


def _share_of_range(report: Report, task: ReportTask, arm: str) -> float | None:
    metric, found = task["metrics"][0], rows_of(report["totals"], task["name"], arm=arm)
    score = found[0]["scores"][0]["score"] if found and found[0]["scores"] else None
    low, high = metric["low"], metric["high"]
    if score is None or low is None or high is None:
        return None
    share = float((score - low) / (high - low))
    return share if metric.get("higher_is_better", True) else 1.0 - share
