"""Progress of a run: a live bar on a terminal, plain lines elsewhere, nothing with `--quiet`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from loom_core.cli.exits import console, say
from loom_core.contract.types import Json

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 10.0


class Quiet:
    """Counts nothing and shows nothing, except what went wrong."""

    def begin(self, total: int, done: int) -> None:
        """Nothing to show."""

    def response(self, record: Mapping[str, Json]) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Worth a line even when quiet: it went wrong."""
        say(f"loom: {text}", err=True)

    def end(self) -> None:
        """Nothing to show."""


class Counter(Quiet):
    """What bars and lines both show: answers, tokens a second, errors."""

    def begin(self, total: int, done: int) -> None:
        """Start counting."""
        self.total, self.done, self.errors, self.tokens = total, done, 0, 0
        self.started = time.monotonic()

    def response(self, record: Mapping[str, Json]) -> None:
        """Count one call."""
        self.tokens += record["n_in"] + record["n_out"]
        if record["last"]:
            failed = record["finish"] == "error"
            self.errors += failed
            self.done += not failed

    @property
    def facts(self) -> str:
        """Tokens a second and errors, as text."""
        rate = self.tokens / max(1e-9, time.monotonic() - self.started)
        return f"{rate:,.0f} tokens/s" + (f", {self.errors} errors" if self.errors else "")


class Bar(Counter):
    """A live bar. Raises ImportError without rich."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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


class Lines(Counter):
    """A plain line every few seconds."""

    def begin(self, total: int, done: int) -> None:
        """Say how much there is."""
        super().begin(total, done)
        self._last = self.started
        self._say(f"{total} answers planned, {done} recorded")

    def response(self, record: Mapping[str, Json]) -> None:
        """Now and then, a line."""
        super().response(record)
        if time.monotonic() - self._last >= LINE_SECONDS or self.done == self.total:
            self._last = time.monotonic()
            self._say(f"{self.done}/{self.total} answers, {self.facts}")

    def note(self, text: str) -> None:
        """A line."""
        self._say(text)

    def _say(self, text: str) -> None:
        say(f"loom: {text}", err=True)


def progress_for(*, quiet: bool) -> Quiet:
    """What watches a run on standard error; a bar on a terminal, where rich is installed."""
    if quiet:
        return Quiet()
    if sys.stderr is None or not sys.stderr.isatty():
        return Lines()
    try:
        return Bar(console(err=True))
    except ImportError:
        return Lines()
