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
from collections.abc import Iterator
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


def main() -> None:
    """Serve orders until told to stop."""
    channel = Channel(sys.stdin, _private_stdout())
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


def _private_stdout() -> TextIO:
    """The protocol's own descriptor; descriptor 1 becomes standard error, so that no print breaks a line."""
    private = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    return private


def _serve(channel: Channel) -> None:
    order = channel.orders.get()
    if order["op"] != "open":
        return
    selection = select(RunConfig.from_json(order["config"]), installed())
    with selection.open_server().open(selection.model, selection.model_options) as session:
        if (digest := order.get("model_digest")) and session.card.digest != digest:
            raise ModelError("the model changed while the run was prepared", where=selection.model)
        with Conversations(selection, session) as conversations:
            channel.send({"op": "ready", "info": _info(session)})
            while not channel.stopping.is_set():
                order = channel.orders.get()
                if order["op"] != "bundle":
                    return
                _answer(channel, selection, conversations, order)


def _answer(channel: Channel, selection: Selection, conversations: Conversations, order: dict[str, Any]) -> None:
    arm = arm_from_json(order["arm"], selection.catalog)
    records: Iterator[dict[str, Any]] = conversations.run(arm, order["jobs"], channel.stopping)
    try:
        for record in records:
            channel.send({"op": "response", "bundle": order["id"], "record": record})
    except Accident:
        raise
    except LoomError as error:  # what it refuses of one arm it may do for the others
        channel.send({"op": "refused", "bundle": order["id"], "error": error.to_json()})
        return
    channel.send({"op": "done", "bundle": order["id"]})


def _info(session: Any) -> dict[str, Any]:
    """What the session knows of its hardware, for the manifest."""
    info: dict[str, Any] = dict(getattr(session, "info", {}))
    return {"pid": os.getpid(), "python": sys.version.split()[0], **info}


if __name__ == "__main__":
    main()
