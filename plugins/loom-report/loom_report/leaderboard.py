"""Several runs in one ranking, where they answered the same questions under the same settings; else in several.

Knows reports and settings; prints nothing. Runs of other settings, simulated beside real savings, other protocols,
incomplete runs and published figures are never in one ranking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from loom_core.contract.keys import digest
from loom_core.contract.types import Json
from loom_core.run.store import RunFolder, read_json
from loom_report.build import build, rows_of
from loom_report.compare import prints_of
from loom_report.records import Report

ASKED = ("name", "benchmark_version", "version", "options", "generation", "truncation", "chat", "extract")
"""What of a task must be equal for its scores to stand in one ranking; and its questions themselves."""


def board(folders: Sequence[RunFolder]) -> list[dict[str, Json]]:
    """The rankings of these runs: {settings, protocol, saves, tasks, rows}, each row a run and an arm, the best first.

    A row has `rank` (ties share one; None where it is not complete or a metric has no bounds), `average` (the mean over
    tasks of the primary score within its metric's range, 0 worst to 1 best) and `scores` by task. Raises RunError where
    a folder holds no plan.
    """
    found: dict[tuple[str, str], dict[str, Json]] = {}
    for folder in folders:
        report, _ = build(folder)
        settings = _settings(folder, report)
        tasks = [task for task in report["tasks"] if not task.get("unavailable")]
        for arm in report["arms"]:
            saves = "simulated" if arm["saves"] == "simulated" else "real"
            ranking = found.setdefault((settings, saves), _empty(settings, saves, report, tasks))
            ranking["rows"].append(_row(report, tasks, arm))
    rankings = [ranking for _, ranking in sorted(found.items(), key=lambda item: item[0][1])]
    for ranking in rankings:
        _rank(ranking["rows"])
    return rankings


def _settings(folder: RunFolder, report: Report) -> str:
    """A digest of what was asked: tasks, their questions, metrics, protocol and the policy for long prompts."""
    plan = read_json(folder.plan)
    tasks = [
        {key: task.get(key) for key in ASKED} | {"metric": (task["metrics"] or [{}])[0]}
        for task in sorted(plan["tasks"], key=lambda task: str(task["name"]))
        if not task.get("unavailable")
    ]
    policy = (plan.get("overlength") or {}).get("policy")
    questions = sorted(prints_of(folder).items())
    return digest([tasks, questions, report["protocol"], policy])[:12]


def _empty(settings: str, saves: str, report: Report, tasks: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    heads = [{"name": task["name"], "metric": task["primary"], "span": task["span"]} for task in tasks]
    return {"settings": settings, "protocol": report["protocol"], "saves": saves, "tasks": heads, "rows": []}


def _row(report: Report, tasks: Sequence[Mapping[str, Any]], arm: Mapping[str, Any]) -> dict[str, Json]:
    totals = [row for task in tasks for row in rows_of(report["totals"], task["name"], arm=arm["name"])]
    scores = {row["task"]: row["scores"][0] for row in totals if row["scores"]}
    shares = [_share(task, scores.get(task["name"])) for task in tasks]
    known = [share for share in shares if share is not None]
    complete = bool(totals) and all(row["n_answered"] == row["n_planned"] for row in totals)
    return {
        "run": report["name"],
        "model": report["model"]["name"],
        "server": report["server"]["name"],
        "arm": arm["name"],
        "query_aware": arm["query_aware"],
        "saves": arm["saves"],
        "complete": complete,
        "average": fmean(known) if known and len(known) == len(shares) else None,
        "scores": {name: {key: score[key] for key in ("score", "low", "high", "n")} for name, score in scores.items()},
        "rank": None,
    }


def _share(task: Mapping[str, Any], score: Mapping[str, Any] | None) -> float | None:
    """A score within its metric's range, 1 the best; None without a score or bounds."""
    metric = task["metrics"][0] if task["metrics"] else {}
    low, high = metric.get("low"), metric.get("high")
    if score is None or score["score"] is None or low is None or high is None or not high > low:
        return None
    share = float((score["score"] - low) / (high - low))
    return share if metric.get("higher_is_better", True) else 1.0 - share


def _rank(rows: list[dict[str, Json]]) -> None:
    """Order rows and number those that may be ranked; equal averages share a rank."""
    rows.sort(key=lambda row: (not row["complete"] or row["average"] is None, -(row["average"] or 0.0)))
    ranked = [row for row in rows if row["complete"] and row["average"] is not None]
    for row in ranked:
        row["rank"] = 1 + sum(other["average"] > row["average"] + 1e-12 for other in ranked)


def members(folder: RunFolder) -> list[RunFolder]:
    """The runs of a study's joined folder; a run that is not a study is its own only member."""
    record = read_json(folder.manifest) if folder.manifest.exists() else {}
    systems = record.get("systems") if isinstance(record, dict) else None
    return [RunFolder(folder.path / row["folder"]) for row in systems.values()] if systems else [folder]
