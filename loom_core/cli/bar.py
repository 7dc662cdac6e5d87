"""Progress of a run as a live bar. Knows rich."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loom_core.cli.progress import Counter
from loom_core.contract.types import Json


class Bar(Counter):
    """A live bar."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("opening the model", total=None, facts="")
        self._bar.start()

    def begin(self, total: int, done: int) -> None:
        """Show how much there is."""
        super().begin(total, done)
        self._bar.update(self._task, total=total, completed=done)

    def response(self, record: Mapping[str, Json]) -> None:
        """Move on."""
        super().response(record)
        self._bar.update(self._task, description="answering", completed=self.done, facts=self.facts)

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(text, highlight=False, markup=False)

    def end(self) -> None:
        """Take the bar away."""
        self._bar.stop()
