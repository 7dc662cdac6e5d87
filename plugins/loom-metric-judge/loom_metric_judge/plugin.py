"""Registers the judged metrics and their options. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import MetricSpec, hookimpl, option


@dataclass(frozen=True)
class JudgeOptions:
    """What the judge is asked."""

    prompts: str = option(
        "", help="a TOML file with the judge's prompts; empty: loom's own wording (prompts.toml)", reach=True
    )


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """One call for each of the first four; two for the comparison; three for the panel."""
    rows = (
        ("judge_correct", "1 where the judge finds the answer says what the reference says", "Correct"),
        ("judge_grade", "a grade from 1 to 10 by a rubric, as a share of the scale", "Grade"),
        ("judge_needle", "a needle's mark (1, 3, 5, 7 or 10) over 10", "Needle"),
        ("judge_quality", "six marks from 1 to 5 for a text, their mean as a share of the scale", "Quality"),
        ("judge_pairwise", "answer against reference in both orders: 1 better, 0.5 tie, 0 worse", "Pairwise"),
        ("judge_panel", "mean mark of three agents (accuracy, completeness, clarity), share of the scale", "Panel"),
    )
    return tuple(
        MetricSpec(
            name=name,
            version="2",
            summary=summary,
            factory=f"loom_metric_judge.metrics:{factory}",
            low=0.1 if name == "judge_needle" else 0.0,
            options=JudgeOptions,
        )
        for name, summary, factory in rows
    )
