"""Registers L-Eval and its options. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import BenchmarkSpec, hookimpl, option

EXAM = ("coursera", "quality", "topic_retrieval_longchat", "tpo", "gsm100", "codeU", "sci_fi")
F1 = ("financial_qa", "legal_contract_qa", "multidoc_qa", "narrative_qa", "natural_question", "scientific_qa")
ROUGE = (
    "gov_report_summ",
    "meeting_summ",
    "news_summ",
    "paper_assistant",
    "patent_summ",
    "review_summ",
    "tv_show_summ",
)
TASKS = (*EXAM, *F1, *ROUGE)


@dataclass(frozen=True)
class LEvalOptions:
    """Which tasks, whose wording, and where documents are cut."""

    group: Literal["all", "exam", "f1", "rouge", "open"] = option(
        "all", help="all 20 tasks, or those scored by exam rules (7), F1 (6), ROUGE (7); open: F1 and ROUGE"
    )
    wording: Literal["auto", "official", "loom"] = option(
        "auto",
        help="official: prompts read from the authors' programs; loom: own wording; auto: the authors' where their "
        "programs can be had and read, else loom's, and every table says so",
    )
    max_length: int | None = option(
        None,
        help="the authors' argument: cut documents by words, 250 at a time, to this many tokens less 512; default: "
        "documents are cut to the model's window less 512, to the token",
        low=513,
    )
    second: Literal["behind", "alone"] = option(
        "behind",
        help="sci_fi's question on the real world. behind: a second message of the user behind document and question, "
        "as in the authors' script; alone: by itself, for models whose chat template refuses two such messages",
    )


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """L-Eval."""
    return (
        BenchmarkSpec(
            name="leval",
            version="2",
            summary="20 tasks on long documents: exams, code, topics, questions and summaries, several a document",
            factory="loom_bench_leval.benchmark:LEval",
            answers="loom_bench_leval.answers:read",
            parity="loom_bench_leval.parity:Parity",
            published="loom_bench_leval.published:cells",
            tasks=TASKS,
            options=LEvalOptions,
            capability="general",
            licence="repository GPL-3.0; documents keep the terms of their sources (fetched, not shipped)",
        ),
    )
