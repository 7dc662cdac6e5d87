"""A small third party's plugin: a benchmark, two metrics and some augmentations, well and ill behaved.

The fixture `toy_plugin` installs it into a temporary folder. Imports only loom_core; its factories are in `parts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, BenchmarkSpec, MetricSpec, NoOptions, hookimpl, option

PARTS = "loom_bench_fable.parts"


@dataclass(frozen=True)
class FableOptions:
    """How many questions, how they hang together, and which of them misbehave."""

    n: int = option(12, low=1, high=10_000, help="questions")
    per_context: int = option(3, low=1, help="questions that share a context")
    words: int = option(30, low=1, help="words of a context")
    turns: int = option(1, low=1, high=8, help="turns of the conversation over each question")
    mood: Literal["calm", "moody", "judged"] = option(
        "calm", help="moody: the second metric raises over question q1; judged: the first asks two agents"
    )
    deadly: int | None = option(None, low=0, help="the worker is killed over this question")
    raising: int | None = option(None, low=0, help="the benchmark raises over this question")
    refusing: int | None = option(None, low=0, help="task chat is refused after this many samples")
    seed: int = option(0, low=0, help="seed of the words")


@dataclass(frozen=True)
class HeadOptions:
    """How much of the context stays."""

    keep: float = option(0.5, low=0.0, high=1.0, help="share of the context that stays")


@dataclass(frozen=True)
class JudgedOptions:
    """How the judged metric reads its judge."""

    best: int = option(10, low=1, help="the best mark")


@dataclass(frozen=True)
class AgainOptions:
    """How often the strategy asks."""

    calls: int = option(2, low=0, high=100, help="calls for one answer")


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """The fables."""
    return (
        BenchmarkSpec(
            name="fable",
            version="1",
            summary="short tales with a number in them",
            factory=f"{PARTS}:Fable",
            tasks=("tell", "chat"),
            options=FableOptions,
            capability="reasoning",
        ),
    )


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """Exact match, one that may raise, and one that asks a model."""
    return (
        MetricSpec(name="fable_exact", version="1", summary="1 if equal", factory=f"{PARTS}:Exact"),
        MetricSpec(name="fable_moody", version="2", summary="1, or it raises", factory=f"{PARTS}:Moody"),
        MetricSpec(
            name="fable_judged", version="1", summary="two agents", factory=f"{PARTS}:Judged", options=JudgedOptions
        ),
    )


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """Prompt augmentations, strategies, and a method that the double cannot do."""
    rows: list[tuple[Literal["prompt", "strategy"], str, str, str, type]] = [
        ("prompt", "fable_head", "keeps the head of the context", "Head", HeadOptions),
        ("prompt", "fable_meddle", "wrongly touches the question", "Meddle", NoOptions),
        ("prompt", "fable_leak", "prints and raises a secret of the environment", "Leak", NoOptions),
        ("strategy", "fable_again", "asks several times and joins the answers", "Again", AgainOptions),
        ("strategy", "fable_stuck", "raises after its first call", "Stuck", NoOptions),
    ]
    specs = [
        AugmentationSpec(
            name=name,
            version="1",
            summary=summary,
            factory=f"{PARTS}:{factory}",
            kind=kind,
            phase="prompt",
            options=options,
        )
        for kind, name, summary, factory, options in rows
    ]
    method = AugmentationSpec(
        name="fable_cache",
        version="1",
        summary="a method for local models",
        factory=f"{PARTS}:Head",
        kind="model",
        options=HeadOptions,
        requires=frozenset({"local_model", "tale_memory"}),
        source="this file",
    )
    return (*specs, method)
