"""Where bundles of jobs are answered: in worker processes (`local`), or in this process (`inline`). Knows no job.

An executor starts workers and hands over their events, one at a time; the runner decides everything else. Others come
from plugins (hook `loom_executors`).
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from loom_core.contract.errors import UsageError
from loom_core.run.inline import InlineWorker
from loom_core.run.placement import Placement
from loom_core.run.process import Events, WorkerProcess


class Worker(Protocol):
    """One worker as the runner sees it. ready: its model is open (set by the runner). last_sign: by `time.monotonic`.
    last_lines: what it said last, for messages."""

    number: int
    ready: bool
    last_sign: float
    last_lines: deque[str]

    def send(self, order: Mapping[str, Any]) -> None:
        """Hand over an order (`worker`)."""

    def stop(self) -> None:
        """Ask it to finish the record in hand and end."""

    def kill(self) -> None:
        """End it now, and whatever it started."""

    def close(self, seconds: float) -> None:
        """Wait for its end, at most so long."""

    def death(self) -> str:
        """How it ended, with its last words."""


class Executor(Protocol):
    """Starts workers and hands over their events."""

    def check(self, placement: Placement) -> None:
        """Raises UsageError where workers cannot be placed so."""

    def start(
        self, number: int, order: Mapping[str, Any], log: Path, *, hidden: list[str], placement: Placement, workers: int
    ) -> Worker:
        """Start a worker (its number from 1, of `workers`) with its first order. hidden: secrets, cut from its log."""

    def next(self, seconds: float) -> tuple[Worker | None, dict[str, Any]]:
        """The next event and whose it is (None: `interrupt`). Raises queue.Empty where none came in time."""

    def interrupt(self) -> None:
        """Put an interrupt before the runner; may be called from a signal handler."""


class Local:
    """Worker processes on this machine, one model each."""

    def __init__(self) -> None:
        self._events: Events = queue.SimpleQueue()

    def check(self, placement: Placement) -> None:
        """Any placement will do: `placement.check` looks at the other environment."""

    def start(
        self, number: int, order: Mapping[str, Any], log: Path, *, hidden: list[str], placement: Placement, workers: int
    ) -> Worker:
        """See `Executor`."""
        environment = placement.environment(number, workers)
        return WorkerProcess(
            number, order, self._events, log, hidden=hidden, python=placement.python, environment=environment
        )

    def next(self, seconds: float) -> tuple[Worker | None, dict[str, Any]]:
        """See `Executor`."""
        return self._events.get(timeout=seconds)

    def interrupt(self) -> None:
        """See `Executor`."""
        self._events.put((None, {"op": "interrupt"}))


class Inline:
    """This process: breakpoints stop here, and what a plugin raises is shown with its traceback.

    A crash of the model takes loom along; what was answered is stored, as ever.
    """

    def __init__(self) -> None:
        self._interrupts: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._worker: InlineWorker | None = None

    def check(self, placement: Placement) -> None:
        """One worker, in loom's own environment."""
        asked = {"--workers": placement.workers > 1, "--devices": bool(placement.groups), "--python": not placement.own}
        if wrong := [flag for flag, given in asked.items() if given]:
            raise UsageError(
                f"{wrong[0]} does not go with --executor inline",
                why="inline answers in this process: one worker, in this environment, on the devices it sees",
                hint="leave it out, or use --executor local",
            )

    def start(
        self, number: int, order: Mapping[str, Any], log: Path, *, hidden: list[str], placement: Placement, workers: int
    ) -> Worker:
        """See `Executor`."""
        self._worker = InlineWorker(number, order)
        return self._worker

    def next(self, seconds: float) -> tuple[Worker | None, dict[str, Any]]:
        """The worker goes on to its next event, here and now."""
        if not self._interrupts.empty():
            self._interrupts.get()
            return None, {"op": "interrupt"}
        event = self._worker.step() if self._worker is not None else None
        if event is None:
            raise queue.Empty
        return self._worker, event

    def interrupt(self) -> None:
        """See `Executor`."""
        self._interrupts.put(None)
