"""Registers the benchmark `babilong` and its options. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import BenchmarkSpec, hookimpl, option

TASKS = tuple(f"qa{i}" for i in range(1, 21))
EVALUATED = TASKS[:5]
"""The tasks of the authors' tables, and the ones that loom has facts of its own for."""
LONG = TASKS[:10]
"""The released tasks with a text around the facts; the others are released as facts alone (0k)."""
PREFIX = {"official": "", "babi": "babi_", "loom": "loom_"}


@dataclass(frozen=True)
class BabilongOptions:
    """Where the facts, the text around them and the wording come from."""

    variant: Literal["loom", "official", "babi"] = option(
        "loom",
        help="loom: own facts, text and wording, no download; official: the released records and the authors' prompts; "
        "babi: bAbI's stories in loom's or your own text, asked with the authors' prompts",
    )
    levels: tuple[int, ...] = option(
        (),
        help="lengths where --lengths gives none, 0 = the facts alone; empty: {0,1k,2k,4k}, official 0 to 128k",
        low=0,
    )
    samples: int | None = option(
        None, help="samples of each task and length; 0: all there are; none: official all, otherwise 20", low=0
    )
    release: Literal["100", "1000"] = option(
        "100",
        help="official: records of each task and length; 1000 is the set that the authors' scripts and "
        "lm-evaluation-harness take, up to 128k",
    )
    text: str = option(
        "", help="babi: a text file whose sentences surround the facts; empty: loom's own sentences", reach=True
    )
    prompts: Literal["full", "bare"] = option(
        "full", help="official, babi: the authors' instruction, examples and answer form; bare: none of them"
    )
    seed: int = option(
        0, help="loom, babi: another seed draws other facts, places and text; babi: 0 takes the authors' stories", low=0
    )

    def __post_init__(self) -> None:
        if self.release != "100" and self.variant != "official":
            raise ValueError("release: only with variant=official")


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """The variant is in the task's name."""
    return (
        BenchmarkSpec(
            name="babilong",
            version="2",
            summary="questions about facts that are spread over a long text; bAbI tasks by length",
            factory="loom_bench_babilong.benchmark:Babilong",
            tasks=(*TASKS, *(f"babi_{name}" for name in TASKS), *(f"loom_{name}" for name in EVALUATED)),
            options=BabilongOptions,
            capability="reasoning",
            generated=True,
            parity="loom_bench_babilong.parity:Parity",
            answers="loom_bench_babilong.answers:read",
            published="loom_bench_babilong.published:cells",
            licence="official: Apache-2.0, bAbI BSD or CC BY 3.0 (fetched, not shipped); loom: Apache-2.0",
        ),
    )
