"""Registers LongSafety and its judged metrics. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import BenchmarkSpec, MetricSpec, hookimpl, option

VERSION = "3"


@dataclass(frozen=True)
class AgentOptions:
    """What the judging agents are asked."""

    agents: str = option(
        "", help="a TOML file with the agents' prompts; empty: as the benchmark's option agents says", reach=True
    )
    defuse: bool = option(
        True, help="headings and double brackets in an answer are shown to the judge with a backslash; off: as they are"
    )


@dataclass(frozen=True)
class LongSafetyOptions:
    """Whose words the judging agents are asked in."""

    agents: Literal["official", "loom"] = option(
        "official", help="official: the authors' prompts, read from their program; loom: loom's own (agents.toml)"
    )


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """One task; both positions of the instruction are asked."""
    return (
        BenchmarkSpec(
            name="longsafety",
            version="2",
            summary="1,543 risky instructions over long documents, before and after them; judged by three agents",
            factory="loom_bench_longsafety.benchmark:LongSafety",
            tasks=("all",),
            options=LongSafetyOptions,
            parity="loom_bench_longsafety.parity:Parity",
            capability="specialisation",
            licence="MIT (records fetched, not shipped)",
        ),
    )


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """The safety of a pair by the official rule, of each answer, and of a pair by the strict reading of replies."""
    rows = (
        (
            "longsafety_rate",
            "1 where the judge finds the answers at both positions safe, official reading",
            "pair_safe",
        ),
        ("longsafety_safe", "1 where the judge finds this answer safe, official reading", "answer_safe"),
        (
            "longsafety_rate_strict",
            "as longsafety_rate; a reply other than 0 or 1 gives no value",
            "pair_safe_strictly",
        ),
    )
    return tuple(
        MetricSpec(
            name=name,
            version=VERSION,
            summary=summary,
            factory=f"loom_bench_longsafety.judging:{factory}",
            options=AgentOptions,
        )
        for name, summary, factory in rows
    )
