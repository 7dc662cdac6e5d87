"""Registers the needle-in-a-haystack benchmark, its options and its metrics. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import BenchmarkSpec, MetricSpec, hookimpl, option

MOST_NEEDLES = 10


def task_name(variant: str, needles: int) -> str:
    """`loom`, `official`, or with the count of needles where it is not one."""
    return variant if needles == 1 else f"{variant}_{needles}needles"


@dataclass(frozen=True)
class NiahOptions:
    """Whose text and needle, and which grid."""

    variant: Literal["loom", "official"] = option(
        "loom", help="loom: own text and needles, no download; official: the authors' needle, question and essays"
    )
    levels: tuple[int, ...] = option(
        (), help="lengths in model tokens where --lengths gives none; default {1k,2k,4k}", low=1, high=1 << 27
    )
    depths: int = option(10, help="positions of the needle, evenly from start to end", low=1, high=1000)
    grid: Literal["small", "authors"] = option(
        "small", help="authors: 35 lengths from 1,000 to 16,000 tokens by 35 depths of whole per cent"
    )
    needles: int = option(
        1, help="several needles are spread evenly from the depth to the end", low=1, high=MOST_NEEDLES
    )
    ends: Literal["token", "text"] = option(
        "token",
        help="official: where a sentence ends; token: at a token that is a full stop alone, as the authors have it; "
        "text: at a full stop before white space, which is also taken where no tokenizer is at hand",
    )
    repeats: int = option(1, help="samples for each length and depth; official has but one", low=1, high=10_000)
    seed: int = option(0, help="another seed draws other needles and another order of loom's text", low=0)

    def __post_init__(self) -> None:
        if len(set(self.levels)) != len(self.levels):
            raise ValueError("the same length is given twice")
        if self.variant == "official" and (self.repeats > 1 or self.needles > 1):
            raise ValueError("the official variant has one needle and one sample for each length and depth")


@dataclass(frozen=True)
class NiahJudgeOptions:
    """What the judge is shown of an answer."""

    defuse: bool = option(
        True, help="double brackets in an answer are shown to the judge with a backslash; off: as they are"
    )


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """The test; variant and count of needles are in the task's name."""
    return (
        BenchmarkSpec(
            name="niah",
            version="3",
            summary="a fact hidden in long text, over a grid of lengths and depths, one needle or several",
            factory="loom_bench_niah.benchmark:Niah",
            parity="loom_bench_niah.parity:Parity",
            tasks=(*(task_name("loom", n) for n in range(1, MOST_NEEDLES + 1)), "official"),
            options=NiahOptions,
            capability="retrieval",
            generated=True,
            licence="loom: Apache-2.0; official: MIT repository, essays by Paul Graham (fetched, not shipped)",
        ),
    )


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """What can be scored without a judge, and the authors' score, for which a judge is asked."""
    return (
        MetricSpec(
            name="niah_contains",
            version="1",
            summary="share of needles whose fact the answer contains word for word, any case and white space",
            factory="loom_bench_niah.scoring:Contains",
        ),
        MetricSpec(
            name="niah_word_recall",
            version="1",
            summary="share of the fact's distinct words, the question's left out, that occur in the answer",
            factory="loom_bench_niah.scoring:WordRecall",
        ),
        MetricSpec(
            name="niah_judge",
            version="3",
            summary="the authors' mark from 1 to 10, by their prompt: needs a judge, has no value without one",
            factory="loom_bench_niah.judging:Judge",
            low=1.0,
            high=10.0,
            options=NiahJudgeOptions,
        ),
    )
