"""Registers L-CiteEval and the metrics of its two tasks with known passages. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import BenchmarkSpec, MetricSpec, hookimpl, option

TASKS = (
    "narrativeqa",
    "natural_questions",
    "hotpotqa",
    "2wikimultihopqa",
    "gov_report",
    "multi_news",
    "qmsum",
    "locomo",
    "dialsim",
    "counting_stars",
    "niah",
)
CONTROLLED = ("narrativeqa", "hotpotqa", "gov_report", "locomo", "counting_stars")
"""The tasks that also come graded by length and by hardness."""


@dataclass(frozen=True)
class LCiteEvalOptions:
    """Which of the three collections is asked, and where answers end."""

    variant: Literal["main", "length", "hardness"] = option(
        "main", help="main: all 11 tasks; length, hardness: the five tasks graded by length or by hardness"
    )
    stop: Literal["none", "newline"] = option(
        "none",
        help="newline: an answer ends at its first line feed, near what the authors ask of models whose configuration "
        "lists several end tokens (Llama 3 Instruct); none: at the end token, as they ask of all others",
    )


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """The 11 tasks, and five in two graded collections."""
    return (
        BenchmarkSpec(
            name="lciteeval",
            version="2",
            summary="11 tasks of 8k to 48k tokens whose answers must cite their passages; correctness and citations",
            factory="loom_bench_lciteeval.benchmark:LCiteEval",
            parity="loom_bench_lciteeval.parity:Parity",
            tasks=(*TASKS, *(f"{task}_{variant}" for variant in ("length", "hardness") for task in CONTROLLED)),
            options=LCiteEvalOptions,
            capability="faithfulness",
            licence="none stated (records and prompts fetched, not shipped)",
        ),
    )


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """Cited against known passages."""
    rows = (
        ("recall", "share of the passages known to hold the answer that are cited", 1.0),
        ("precision", "share of the cited passages that hold the answer", 1.0),
        ("f1", "harmonic mean of the two", 1.0),
        ("count", "citations that count in one answer", float("inf")),
    )
    return tuple(
        MetricSpec(
            name=f"lciteeval_passage_{part}",
            version="2",
            summary=summary,
            factory=f"loom_bench_lciteeval.passages:passage_{part}",
            high=high,
        )
        for part, summary, high in rows
    )
