"""A benchmark and a server as the rest of loom sees them: every call of the plugin guarded, every value checked once.

Nothing behind these needs to doubt what a plugin gave, or to catch what it raises: looking at a value is guarded like
making it, for it may raise whatever is asked of it. Knows contracts; no plugin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from loom_core.contract import border
from loom_core.contract.guard import each, guarded
from loom_core.contract.protocols import (
    Benchmark,
    Data,
    Graded,
    Judging,
    Line,
    Metric,
    ModelCard,
    Server,
    Session,
    Tokenizer,
)
from loom_core.contract.types import Response, Sample, Scored, Task, Turn


class HostedBenchmark:
    """A plugin's benchmark. declared: the names of the tasks that its spec promises.

    All methods of `Benchmark`; each raises PluginError for whatever the plugin raises and for what it should not have
    given. Attributes of the plugin's own (`sources`, `score_gold`) are passed on.
    """

    def __init__(self, plugin: Benchmark, name: str, declared: Collection[str]) -> None:
        self.plugin, self._owner, self._declared = plugin, f"benchmark {name}", declared

    def __getattr__(self, name: str) -> Any:
        if name in ("plugin", "_owner", "_declared"):
            raise AttributeError(name)  # while it is being copied
        return getattr(self.plugin, name)

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """See `Benchmark`."""
        with guarded(self._owner, "tasks()"):
            return border.tasks(self.plugin.tasks(lengths), self._owner, self._declared)

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """See `Benchmark`."""
        with guarded(self._owner, "samples()"):
            given = self.plugin.samples(task, data, tokenizer, lengths)
        for sample in each(given, self._owner, "samples()"):
            with guarded(self._owner, "samples()"):
                checked = border.sample(sample, self._owner, task.name)
            yield checked

    def follow_up(self, sample: Sample, responses: Sequence[Response]) -> Turn | None:
        """See `Benchmark`."""
        with guarded(self._owner, "follow_up()"):
            given = self.plugin.follow_up(sample, responses)
            return None if given is None else border.turn(given, self._owner)

    def score(
        self, sample: Sample, responses: Sequence[Response], metrics: Mapping[str, Metric]
    ) -> Mapping[str, Scored | Judging]:
        """See `Benchmark`; the values are checked where they are kept (`border.scored`)."""
        with guarded(self._owner, "score()"):
            return self.plugin.score(sample, responses, metrics)

    def score_group(self, rows: Sequence[Graded]) -> Sequence[Mapping[str, Scored]]:
        """See `Benchmark`; the values are checked where they are kept (`border.scored`)."""
        with guarded(self._owner, "score_group()"):
            return list(self.plugin.score_group(rows))

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """See `Benchmark`."""
        with guarded(self._owner, "aggregate()"):
            return border.lines(self.plugin.aggregate(rows), self._owner)


class HostedServer:
    """A plugin's server; what it opens is the plugin's own session. Attributes of its own are passed on."""

    def __init__(self, plugin: Server, name: str) -> None:
        self.plugin, self._owner = plugin, f"server {name}"

    def __getattr__(self, name: str) -> Any:
        if name in ("plugin", "_owner"):
            raise AttributeError(name)  # while it is being copied
        return getattr(self.plugin, name)

    def describe(self, model: str, options: Any) -> ModelCard:
        """See `Server`."""
        with guarded(self._owner, "describe()"):
            return border.card(self.plugin.describe(model, options), self._owner)

    def open(self, model: str, options: Any) -> AbstractContextManager[Session]:
        """See `Server`."""
        with guarded(self._owner, "open()"):
            return self.plugin.open(model, options)
