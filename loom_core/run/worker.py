"""One worker: opens a model, answers the bundles of jobs it is sent, writes each response as it comes.

Runs as `python -m loom_core.run.worker`, perhaps in another environment, and speaks JSON lines: orders on standard
input, events on the descriptor that was standard output (what libraries print goes to standard error). Stores nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from loom_core.contract.errors import LoomError, ModelError
from loom_core.contract.guard import Accident, guarded
from loom_core.registry.names import arm_from_json
from loom_core.registry.plugins import installed
from loom_core.run.config import RunConfig
from loom_core.run.conversation import Conversations
from loom_core.run.selection import Selection, select
from loom_core.run.writing import to_line

HEARTBEAT_SECONDS = 5.0
CLOSING_SECONDS = 30.0
"""How long a session may take to close after the last order."""


class Channel:
    """The line protocol: events out, orders in. Closed input means that the parent is gone: the worker exits."""

    def __init__(self, source: TextIO, sink: TextIO) -> None:
        self._sink, self._lock = sink, threading.Lock()
        self.orders: queue.Queue[dict[str, Any]] = queue.Queue()
        self.stopping = threading.Event()
        threading.Thread(target=self._read, args=(source,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def send(self, event: dict[str, Any]) -> None:
        """Write one event."""
        with self._lock:
            self._sink.write(to_line(event))
            self._sink.flush()

    def _read(self, source: TextIO) -> None:
        for line in source:
            order = json.loads(line)
            if order["op"] == "stop":
                self.stopping.set()
            self.orders.put(order)
        if self.stopping.is_set():
            time.sleep(CLOSING_SECONDS)  # told to stop: the session closes by itself
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # the parent is gone: nothing that was started here outlives it
        os._exit(0)

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            with contextlib.suppress(OSError, ValueError):
                self.send({"op": "beat"})


@dataclass(frozen=True)
class Opened:
    """A worker with its model. info: what the session knows of its hardware, for the manifest."""

    selection: Selection
    conversations: Conversations
    info: dict[str, Any]


@contextlib.contextmanager
def opened(order: Mapping[str, Any]) -> Iterator[Opened]:
    """Open the model of an order `{"op": "open", "config": …}`. Raises ModelError where it is not the planned one."""
    selection = select(RunConfig.from_json(order["config"]), installed())
    with selection.open_server().open(selection.model, selection.model_options) as session:
        if (digest := order.get("model_digest")) and session.card.digest != digest:
            raise ModelError("the model changed while the run was prepared", where=selection.model)
        with Conversations(selection, session) as conversations:
            yield Opened(selection, conversations, _info(session))


def answers(worker: Opened, order: Mapping[str, Any], stopping: threading.Event) -> Iterator[dict[str, Any]]:
    """The events of an order `{"op": "bundle", …}`: each response as it comes, then that it is done, or refused."""
    arm = arm_from_json(order["arm"], worker.selection.catalog)
    try:
        for record in worker.conversations.run(arm, order["jobs"], stopping):
            yield {"op": "response", "bundle": order["id"], "record": record}
    except Accident:
        raise
    except LoomError as error:  # what a server refuses of one arm it may do for the others
        yield {"op": "refused", "bundle": order["id"], "error": error.to_json()}
        return
    yield {"op": "done", "bundle": order["id"]}


def main() -> None:
    """Serve orders until told to stop."""
    channel = Channel(_private_stdin(), _private_stdout())
    sys.breakpointhook = _no_terminal
    try:
        with guarded("a worker"):
            _serve(channel)
    except LoomError as error:
        # What a plugin raised by accident may go otherwise in another process; what it refuses it refuses again.
        accident = isinstance(error, Accident)
        if accident:
            traceback.print_exc()
            error = ModelError("a worker failed", why=error.what, hint="see logs/ in the run folder")
        channel.send({"op": "failed", "error": error.to_json(), "permanent": not accident})
        sys.exit(1)


def _no_terminal(*_: object, **__: object) -> None:
    """What `breakpoint()` does in a worker process: it has no terminal, and would wait for ever."""
    raise ModelError(
        "a breakpoint was reached in a worker process, which has no terminal",
        hint="loom run … --executor inline answers in loom's own process, where breakpoints stop",
    )


def _private_stdin() -> TextIO:
    """The protocol's own descriptor; descriptor 0 becomes empty, so that nothing that reads it takes an order away."""
    private = os.fdopen(os.dup(0), "r", encoding="utf-8")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return private


def _private_stdout() -> TextIO:
    """The protocol's own descriptor; descriptor 1 becomes standard error, so that no print breaks a line."""
    private = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    return private


def _serve(channel: Channel) -> None:
    order = channel.orders.get()
    if order["op"] != "open":
        return
    with opened(order) as worker:
        channel.send({"op": "ready", "info": worker.info})
        while not channel.stopping.is_set():
            order = channel.orders.get()
            if order["op"] != "bundle":
                return
            for event in answers(worker, order, channel.stopping):
                channel.send(event)


def _info(session: Any) -> dict[str, Any]:
    """What the session knows of its hardware, for the manifest."""
    info: dict[str, Any] = dict(getattr(session, "info", {}))
    return {"pid": os.getpid(), "python": sys.version.split()[0], **info}


if __name__ == "__main__":
    main()
