"""Registers LongBench v2 and its options. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import BenchmarkSpec, hookimpl, option

AUTHORS_LENGTH = 120_000


@dataclass(frozen=True)
class LongBenchV2Options:
    """How the questions are asked, and where prompts are cut."""

    mode: Literal["direct", "cot", "no_context", "rag"] = option(
        "direct",
        help="direct: one call; cot: the model thinks in a first call and answers in a second without the text; "
        "no_context: the question alone; rag: the authors' wording for retrieved text, for arms that retrieve",
    )
    max_length: int = option(
        AUTHORS_LENGTH, help="cut raw prompts to this many tokens, or to the window where that is smaller", low=2
    )


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """LongBench v2; the mode is the task's name."""
    return (
        BenchmarkSpec(
            name="longbench-v2",
            version="2",
            summary="503 multiple-choice questions on texts of 8 thousand to 2 million words, by difficulty and length",
            factory="loom_bench_longbench_v2.benchmark:LongBenchV2",
            parity="loom_bench_longbench_v2.parity:Parity",
            tasks=("direct", "cot", "no_context", "rag"),
            options=LongBenchV2Options,
            capability="reasoning",
            licence="prompts MIT; records Apache-2.0 (fetched, not shipped)",
        ),
    )
