"""A worker in this process: the same orders and events as those of a worker process, one step at a time.

Nothing stands between a plugin and the terminal: a breakpoint stops, an exception comes with its traceback.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Generator, Mapping
from typing import Any

from loom_core.contract.errors import LoomError
from loom_core.contract.guard import Accident, guarded
from loom_core.run.worker import answers, opened


class InlineWorker:
    """Advances only when it is asked for its next event."""

    def __init__(self, number: int, order: Mapping[str, Any]) -> None:
        self.number = number
        self.ready = False
        self.last_lines: deque[str] = deque(maxlen=1)
        self._orders: deque[Mapping[str, Any]] = deque()
        self._stopping = threading.Event()
        self._ended = False
        self._events = self._run(order)

    @property
    def last_sign(self) -> float:
        """It runs where loom runs: it is never silent."""
        return time.monotonic()

    @last_sign.setter
    def last_sign(self, value: float) -> None: ...

    def send(self, order: Mapping[str, Any]) -> None:
        """Take note of an order."""
        self._orders.append(order)

    def step(self) -> dict[str, Any] | None:
        """The next event; None while it waits for an order. Raises what the session refuses."""
        if self._ended:
            return None
        try:
            with guarded("a worker"):
                return next(self._events)
        except StopIteration:
            self._ended = True
            return {"op": "gone"}
        except LoomError as error:
            if isinstance(error, Accident):
                traceback.print_exception(error.__cause__ or error)
            raise

    def stop(self) -> None:
        """The record in hand is finished, and no further one begun."""
        self._stopping.set()
        self._orders.append({"op": "stop"})

    def kill(self) -> None:
        """Close the session."""
        self._ended = True
        self._events.close()

    def close(self, seconds: float) -> None:
        """Close the session."""
        self.kill()

    def death(self) -> str:
        """It has none of its own: whatever ended it was raised."""
        return "it ended"

    def _run(self, order: Mapping[str, Any]) -> Generator[dict[str, Any] | None]:
        with opened(order) as worker:
            yield {"op": "ready", "info": worker.info}
            while not self._stopping.is_set():
                if not self._orders:
                    yield None
                    continue
                order = self._orders.popleft()
                if order["op"] != "bundle":
                    return
                yield from answers(worker, order, self._stopping)
