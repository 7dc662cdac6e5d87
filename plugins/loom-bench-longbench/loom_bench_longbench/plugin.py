"""Registers LongBench and its options. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import BenchmarkSpec, hookimpl, option

TASKS = (
    "narrativeqa",
    "qasper",
    "multifieldqa_en",
    "multifieldqa_zh",
    "hotpotqa",
    "2wikimqa",
    "musique",
    "dureader",
    "gov_report",
    "qmsum",
    "multi_news",
    "vcsum",
    "trec",
    "triviaqa",
    "samsum",
    "lsht",
    "passage_count",
    "passage_retrieval_en",
    "passage_retrieval_zh",
    "lcc",
    "repobench-p",
)
EXTENDED_TASKS = (
    "qasper_e",
    "multifieldqa_en_e",
    "hotpotqa_e",
    "2wikimqa_e",
    "gov_report_e",
    "multi_news_e",
    "trec_e",
    "triviaqa_e",
    "samsum_e",
    "passage_count_e",
    "passage_retrieval_en_e",
    "lcc_e",
    "repobench-p_e",
)


@dataclass(frozen=True)
class LongBenchOptions:
    """Which tasks, and where prompts are cut."""

    view: Literal["standard", "e", "both", "groups"] = option(
        "standard",
        help="standard: the 21 tasks; e: the 13 tasks spread evenly over lengths; both; groups: 15 English tasks and "
        "the means of six groups, as in arXiv 2407.01527",
    )
    max_length: int | None = option(
        None,
        help="cut raw prompts to this many tokens, as the authors do for each model (window 4096: 3500, 32k: 31500); "
        "default: the window less the answer",
        low=2,
    )


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """LongBench, first version."""
    return (
        BenchmarkSpec(
            name="longbench",
            version="2",
            summary="21 English and Chinese tasks: questions, summaries, few-shot, retrieval, code; 13 by length",
            factory="loom_bench_longbench.benchmark:LongBench",
            tasks=(*TASKS, *EXTENDED_TASKS),
            options=LongBenchOptions,
            parity="loom_bench_longbench.parity:Parity",
            capability="general",
            licence="MIT; source corpora keep their own terms (fetched, not shipped)",
        ),
    )
