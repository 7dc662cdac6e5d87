"""What the pictures of a report show: how far a score holds by length, and scores by length and depth.

Knows ledgers and the cells made of them; draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from loom_core.contract.types import Json
from loom_report.cells import BASELINE, Metric, levels_of, metrics_of, scored_of
from loom_report.ledger import Answer, Ledger
from loom_report.statistics import stats

MOST_DEPTHS = 12
DEPTH_BINS = 10
SHARE_KEPT = 0.85


def effective_lengths(ledger: Ledger, cells: Sequence[Mapping[str, Json]]) -> list[dict[str, Json]]:
    """Per task and arm: the longest level that keeps 85 % of the baseline's primary score at the shortest."""
    found = []
    for task in ledger.plan["tasks"]:
        levels = levels_of(ledger, task["name"])
        lower_is_better = any(not m.get("higher_is_better", True) for m in task["metrics"][:1])
        if len(levels) < 2 or lower_is_better or not task["metrics"]:
            continue
        base = [c for c in cells if c["task"] == task["name"] and c["arm"] == BASELINE]
        reference = base[0]["scores"][0]["score"] if base else None
        for arm in ledger.plan["arms"]:
            rows = [c for c in cells if c["task"] == task["name"] and c["arm"] == arm["name"]]
            held = stats.effective_length([row["scores"][0]["score"] for row in rows], SHARE_KEPT, reference)
            found.append(
                {
                    "task": task["name"],
                    "arm": arm["name"],
                    "level": levels[held.level] if held else None,
                    "tokens": rows[held.level]["length"] if held else None,
                    "at_least": held.at_least if held else None,
                    "gap": held.gap if held else None,
                    "reference": reference,
                    "share": SHARE_KEPT,
                }
            )
    return found


def grids(ledger: Ledger) -> list[dict[str, Json]]:
    """Per task and arm, the primary score by level and depth, for tasks whose questions record a depth.

    rows: depths from the start of the context to its end. values[row][column]: {score, n, n_planned}, or None where
    nothing was asked.
    """
    found = []
    for task in ledger.plan["tasks"]:
        name, levels = task["name"], levels_of(ledger, task["name"])
        depths = sorted({q.depth for level in levels for q in ledger.asked(name, level) if q.depth is not None})
        metrics = metrics_of(ledger, task)
        if not depths or not metrics:
            continue
        edges = depths if len(depths) <= MOST_DEPTHS else [(i + 0.5) / DEPTH_BINS for i in range(DEPTH_BINS)]
        for arm in ledger.plan["arms"]:
            columns = [_by_depth(ledger, metrics[0], ledger.of(name, level, arm["name"]), edges) for level in levels]
            found.append(
                {
                    "task": name,
                    "arm": arm["name"],
                    "metric": metrics[0].name,
                    "low": metrics[0].low if math.isfinite(metrics[0].low) else None,
                    "high": metrics[0].high if math.isfinite(metrics[0].high) else None,
                    "levels": levels,
                    "depths": edges,
                    "binned": len(depths) > MOST_DEPTHS,
                    "values": [list(row) for row in zip(*columns, strict=True)],
                }
            )
    return found


def _by_depth(ledger: Ledger, metric: Metric, answers: Iterable[Answer], depths: Sequence[float]) -> list[Json]:
    """One column of a grid: {score, n, n_planned} at each depth."""
    groups: list[list[Answer]] = [[] for _ in depths]
    for answer in answers:
        depth = answer.question.depth
        if depth is not None:
            groups[min(range(len(depths)), key=lambda i: abs(depths[i] - depth))].append(answer)
    column: list[Json] = []
    for group in groups:
        values = [value for _, value in scored_of(ledger, metric, group)]
        score = fmean(values) if values else None
        column.append({"score": score, "n": len(values), "n_planned": len(group)} if group else None)
    return column
