"""What is beside a score in tables, as texts: the bounds of unscored answers, and the calls of strategies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom_report.records import Report
from loom_report.render import text

from loom_core.contract.types import Json

HEADS = ("calls", "2+ calls")
BOUNDS_NOTE = "bounds: the mean if every answer without a value were wrong, and if every one were right"
CALLS_NOTE = (
    "calls: of the model, for an answer; 2+ calls: answers that took more than one (of self-route: its routed share)"
)


def bounds(score: Mapping[str, Json], span: float) -> str:
    """The mean with all unscored answers wrong, and right; a dash where every answer has a value."""
    found = score.get("bounds")
    return f"{text.score(found[0], span)} to {text.score(found[1], span)}" if found else text.NONE


def has_strategy(report: Report) -> bool:
    """Whether an arm may take several calls for an answer."""
    return any(part.get("kind") == "strategy" for arm in report["arms"] for part in arm["parts"])


def calls(row: Mapping[str, Any]) -> tuple[str, str]:
    """Calls of the model for an answer, on average, and the share of answers that took more than one."""
    n = row["cost"]["calls"]
    return (text.NONE if n is None else f"{n:.3g}", text.share(row["cost"]["several_calls"]))


def flat(row: Mapping[str, Any], score: Mapping[str, Json]) -> dict[str, Json]:
    """The same as numbers, for CSV."""
    wrong, right = score.get("bounds") or (None, None)
    cost = row["cost"]
    return {
        "score_all_wrong": wrong,
        "score_all_right": right,
        "calls": cost["calls"],
        "several_calls": cost["several_calls"],
    }
