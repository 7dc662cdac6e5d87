"""A third party's plugin that is upgraded between two commands: its versions come from the environment.

ALMANAC names what is new, e.g. `benchmark,metric`; each is then version 2 and behaves otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from loom_core.api import (
    AugmentationSpec,
    BenchmarkBase,
    BenchmarkSpec,
    Data,
    Generation,
    MetricSpec,
    NoOptions,
    Prompt,
    Sample,
    Scored,
    Task,
    Tokenizer,
    hookimpl,
    segment,
)

NEW = frozenset(os.environ.get("ALMANAC", "").split(","))


def version(kind: str) -> str:
    """The version of a component."""
    return "2" if kind in NEW else "1"


class Almanac(BenchmarkBase):
    """Four questions; version 2 allows more tokens."""

    def __init__(self, options: NoOptions) -> None:
        pass

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """One task, or two in a release that has more of them."""
        limit = 16 if "benchmark" in NEW or "limits" in NEW else 8
        names = ("renamed",) if "gone" in NEW else ("moon", "tide") if "more" in NEW else ("moon",)
        generation = Generation(max_tokens=limit)
        return [
            Task(name=name, version="1", capability="", metrics=("almanac_seen",), generation=generation)
            for name in names
        ]

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """Four of them."""
        for n in range(4):
            parts = (segment("context", f"Night {n} is dark. "), segment("question", f"What is night {n}?"))
            prompt = Prompt(segments=parts)
            yield Sample(id=str(n), task=task.name, prompt=prompt, references=("dark",))


class Seen:
    """The same value for every answer, another one in version 2."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0.25, from version 2 on 0.75."""
        return Scored(value=0.75 if "metric" in NEW else 0.25)


class Same:
    """A prompt augmentation that changes nothing."""

    def __init__(self, options: NoOptions) -> None:
        pass

    def open(self, tokenizer: Tokenizer | None) -> AbstractContextManager[None]:
        """Nothing to hold."""
        return nullcontext()

    def rewrite(self, prompt: Prompt, tokenizer: Tokenizer | None, *, chat: str = "template") -> Prompt:
        """The prompt as it is."""
        return prompt


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """The almanac."""
    tasks = ("moon", "tide", "renamed")
    spec = BenchmarkSpec(
        name="almanac", version=version("benchmark"), summary="nights", factory=f"{__name__}:Almanac", tasks=tasks
    )
    return (spec,)


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """Its metric."""
    return (MetricSpec(name="almanac_seen", version=version("metric"), summary="seen", factory=f"{__name__}:Seen"),)


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """Its method."""
    return (
        AugmentationSpec(
            name="almanac-same",
            version=version("method"),
            summary="nothing",
            factory=f"{__name__}:Same",
            kind="prompt",
            phase="prompt",
        ),
    )
