"""Registers the RULER benchmark and its options. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import BenchmarkSpec, hookimpl, option

TASKS = (
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "vt",
    "cwe",
    "fwe",
    "qa_1",
    "qa_2",
)
"""The authors' names. The loom variant's tasks are called `loom_` + name."""


@dataclass(frozen=True)
class RulerOptions:
    """Whose text, and how many samples at which lengths."""

    variant: Literal["loom", "official"] = option(
        "loom", help="loom: own text and wording, no download; official: templates, settings and essays of the authors"
    )
    samples: int | None = option(
        None, help="samples for each task and length; default 20, and 500 for official as the authors have", low=1
    )
    levels: tuple[int, ...] = option(
        (),
        help="lengths in model tokens where --lengths gives none; default {4k,8k}, official {4k,…,128k}",
        low=1,
        high=1 << 27,
    )
    seed: int | None = option(
        None, help="another seed draws other samples; default 0, and 42 for official as the authors have", low=0
    )
    vt: Literal["pinned", "paper"] = option(
        "pinned", help="official: vt's layout, of the pinned commit or of the generator before 2025-05-13"
    )
    long_lists: Literal["auto", "file", "pool"] = option(
        "auto",
        help="official: cwe lists of more words than wonderwords has; file: from english_words.json, as the authors; "
        "pool: not made; auto: file where it is at hand, else pool, with a note",
    )
    room: Literal["base", "template"] = option(
        "base", help="official: a length holds the bare prompt, or the chat template and BOS as well"
    )

    def __post_init__(self) -> None:
        if len(set(self.levels)) != len(self.levels):
            raise ValueError("the same length is given twice")
        chosen = {"vt": self.vt, "long_lists": self.long_lists, "room": self.room}
        usual = {"vt": "pinned", "long_lists": "auto", "room": "base"}
        if self.variant == "loom" and (odd := sorted(name for name in chosen if chosen[name] != usual[name])):
            raise ValueError(f"{', '.join(odd)}: only with variant=official")


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """RULER; the variant is in the task's name."""
    return (
        BenchmarkSpec(
            name="ruler",
            version="2",
            summary="13 synthetic tasks at any length: needles, variable chains, word counts, questions",
            factory="loom_bench_ruler.benchmark:Ruler",
            tasks=(*(f"loom_{name}" for name in TASKS), *TASKS),
            options=RulerOptions,
            capability="general",
            generated=True,
            parity="loom_bench_ruler.parity:Parity",
            licence="loom: Apache-2.0; official: Apache-2.0 files of NVIDIA/RULER, essays by Paul Graham (fetched)",
        ),
    )
