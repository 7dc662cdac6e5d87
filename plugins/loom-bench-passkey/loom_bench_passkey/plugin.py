"""Registers the passkey benchmark, its options and its two metrics. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import BenchmarkSpec, MetricSpec, hookimpl, option


@dataclass(frozen=True)
class PasskeyOptions:
    """Which text hides the key, and at how many lengths, depths and keys."""

    variant: Literal["loom", "essays"] = option(
        "loom", help="loom: own filler text, no download; essays: the settings and essays of the paper, fetched"
    )
    words: tuple[int, ...] = option(
        (),
        help="lengths of the filler in words; empty: {256,512,1024}, or the paper's ten for essays",
        low=1,
        high=10_000_000,
    )
    depths: int = option(10, help="positions of the key, evenly from start to end of the filler", low=1, high=1000)
    repeats: int = option(3, help="random keys for each length and depth", low=1, high=10_000)
    digits: Literal[7, 64] = option(7, help="digits of a key, as in the paper: 7 or 64")
    seed: int = option(
        0, help="another seed draws other keys (and for loom other filler); essays: 0 draws upstream's", low=0
    )

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words):
            raise ValueError("the same number of words is given twice")


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """The passkey test; the variant and the digits are in the task's name."""
    return (
        BenchmarkSpec(
            name="passkey",
            version="2",
            summary="a 7- or 64-digit pass key hidden in filler text, by length and depth",
            factory="loom_bench_passkey.benchmark:Passkey",
            tasks=("loom", "loom_64digits", "essays", "essays_64digits"),
            options=PasskeyOptions,
            parity="loom_bench_passkey.parity:Parity",
            capability="retrieval",
            generated=True,
            licence="loom: Apache-2.0; essays: settings MIT, texts by Paul Graham (fetched, not shipped)",
        ),
    )


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """Exact and partial match, as the paper's repository scores them."""
    return (
        MetricSpec(
            name="passkey_exact",
            version="1",
            summary="1 if the normalised answer contains the key, else 0",
            factory="loom_bench_passkey.scoring:ExactMatch",
        ),
        MetricSpec(
            name="passkey_partial",
            version="1",
            summary="longest common substring of answer and key, as a share of the key's length",
            factory="loom_bench_passkey.scoring:PartialMatch",
        ),
    )
