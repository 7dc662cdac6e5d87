"""Registers the benchmark `counting-stars` and its options. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import BenchmarkSpec, hookimpl, option

FORMS = ("en_searching", "en_reasoning", "zh_searching", "zh_reasoning")
PREFIX = "loom_"


@dataclass(frozen=True)
class CountingStarsOptions:
    """The authors' four files, or loom's own text at any length."""

    variant: Literal["official", "loom"] = option(
        "official", help="official: the authors' files, fetched; loom: own text and wording, no download"
    )
    sizes: tuple[int, ...] = option(
        (), help="official: which of the 32 sizes, each 4,000 nominal tokens more; empty: all", low=1, high=32
    )
    levels: tuple[int, ...] = option(
        (4096, 8192), help="loom: lengths in model tokens where --lengths gives none", low=512, high=1 << 27
    )
    stars: int = option(32, help="loom: counts in a text", low=1, high=32)
    samples: int = option(10, help="loom: samples of each task and length", low=1)
    seed: int = option(0, help="loom: another seed draws other counts and other text", low=0)


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """Two languages, each searching and reasoning; loom's own under names of their own."""
    return (
        BenchmarkSpec(
            name="counting-stars",
            version="1",
            summary="32 counts scattered over a text, collected in one list; searching and reasoning, en and zh",
            factory="loom_bench_counting_stars.benchmark:CountingStars",
            tasks=(*FORMS, *(PREFIX + form for form in FORMS)),
            options=CountingStarsOptions,
            capability="reasoning",
            parity="loom_bench_counting_stars.parity:Parity",
            licence="official: MIT, texts by Paul Graham and Cao Xueqin (fetched, not shipped); loom: Apache-2.0",
        ),
    )
