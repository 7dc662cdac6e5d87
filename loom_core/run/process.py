"""A worker seen from the parent: a child process, its line protocol, its log, its last sign of life.

Knows no job and no store. The child gets its own process group, so that Ctrl-C reaches the parent alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from loom_core.run.manifest import redact
from loom_core.run.writing import to_line

LAST_LINES = 20
LONGEST_LINE = 1 << 28
"""Characters of one event: what is longer is none."""


class WorkerProcess:
    """One child. Its events arrive on a shared queue as (worker, event); the last is `{"op": "gone"}`."""

    def __init__(
        self,
        number: int,
        order: Mapping[str, Any],
        events: Events,
        log: Path,
        *,
        hidden: list[str],
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.number, self.ready, self.last_sign = number, False, time.monotonic()
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", **(environment or {})}
        environment.setdefault("OMP_NUM_THREADS", environment.get("LOOM_THREADS", "1"))
        # Spinning threads starve each other on a busy machine: one decode step was seen to take 100 times as long.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self._child = subprocess.Popen(
            [python, "-m", "loom_core.run.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._log = threading.Thread(target=self._copy_log, args=(log, hidden), daemon=True)
        self._log.start()
        threading.Thread(target=self._read, args=(events,), daemon=True).start()
        self.send(order)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def send(self, order: Mapping[str, Any]) -> None:
        """Send one order; a dead child is noticed by its reader, not here."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._child.stdin.write(to_line(order))
            self._child.stdin.flush()

    def stop(self) -> None:
        """Ask the child to finish the record in hand and end."""
        self.send({"op": "stop"})

    def kill(self) -> None:
        """End the child now, and whatever it started: an engine's own processes are in its group."""
        with contextlib.suppress(OSError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def close(self, seconds: float) -> None:
        """Wait for the child to end, and kill it when it does not."""
        with contextlib.suppress(OSError, ValueError):
            if self._child.stdin is not None:
                self._child.stdin.close()
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def death(self) -> str:
        """How the child ended, with its last words."""
        code = self._child.wait()
        self._log.join(timeout=2)
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        words = [line for line in self.last_lines if line.strip()]
        return how + (f"; its last words: {' | '.join(words[-3:])}" if words else "")

    def _read(self, events: Events) -> None:
        assert self._child.stdout is not None
        pipe = self._child.stdout
        for line in iter(lambda: pipe.readline(LONGEST_LINE), ""):
            self.last_sign = time.monotonic()
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(event, dict) or not isinstance(event.get("op"), str):
                break
            events.put((self, event))
        events.put((self, {"op": "gone"}))

    def _copy_log(self, log: Path, hidden: list[str]) -> None:
        assert self._child.stderr is not None
        with log.open("a", encoding="utf-8") as file:
            for line in self._child.stderr:
                text = redact(line, hidden)
                self.last_lines.append(text.rstrip())
                file.write(text)
                file.flush()


Events: TypeAlias = "queue.SimpleQueue[tuple[WorkerProcess | None, dict[str, Any]]]"
"""What workers report, and (from None) what a signal handler does: only a SimpleQueue may be put to from one."""
