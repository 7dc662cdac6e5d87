"""One program in one confined child process: started, timed, killed, and its verdict read. Knows no model and no test.

The child (`inside`) confines itself before it runs the program, and tells the parent so; a program whose child could
not be confined is not run. It has no environment, no input, an empty folder, and cannot make processes: killing it ends
all.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

INSIDE = Path(__file__).with_name("inside.py")
START_SECONDS = 20.0
"""What the child may take to start Python before its own time begins; on a busy machine that is long."""
MOST_BYTES = 4096


class Unconfined(Exception):
    """The child could not be confined here, and why; nothing was run."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a program ended. passed: it ran to its end. why: "passed", "raised NAME", "time", "killed by signal N", …"""

    passed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take. seconds: wall clock, and processor time rounded up."""

    seconds: float
    memory_bytes: int
    confine: Literal["kernel", "audit"] = "kernel"


def run(program: str, limits: Limits) -> Verdict:
    """Run a Python program within limits. Raises Unconfined where this system cannot confine it as asked."""
    with tempfile.TemporaryDirectory(prefix="loom-code-") as folder:
        path = Path(folder) / "program.py"
        path.write_text(program, "utf-8", errors="replace")
        token = secrets.token_hex(16)
        order = {
            "token": token,
            "program": str(path),
            "seconds": math.ceil(limits.seconds),
            "memory_bytes": limits.memory_bytes,
            "confine": limits.confine,
        }
        child = subprocess.Popen(
            [sys.executable, "-I", "-B", str(INSIDE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            return _watched(child, json.dumps(order) + "\n", token, limits.seconds)
        finally:
            _end(child)


def _watched(child: subprocess.Popen[bytes], order: str, token: str, seconds: float) -> Verdict:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(order.encode())
        child.stdin.close()
    said = _line(child, START_SECONDS)
    if said != "ready":
        raise Unconfined(
            (said or "").removeprefix("unconfined ") or f"the child ended before it was confined ({_how(child)})"
        )
    last = _line(child, seconds)
    if last == token:
        return Verdict(True, "passed")
    if last is None:
        return Verdict(False, f"time: more than {seconds:g} s")
    return Verdict(False, last if last.startswith("raised ") and len(last) < 200 else _how(child))


def _line(child: subprocess.Popen[bytes], seconds: float) -> str | None:
    """What the child says next, up to a line feed or its end; None where it says nothing in time."""
    assert child.stdout is not None
    said, end = b"", time.monotonic() + seconds
    while b"\n" not in said and len(said) < MOST_BYTES:
        ready, _, _ = select.select([child.stdout], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return None
        # One byte at a time: what follows the line belongs to the next reading.
        piece = os.read(child.stdout.fileno(), 1)
        if not piece:
            break
        said += piece
    return said.decode("utf-8", "replace").strip()


def _how(child: subprocess.Popen[bytes]) -> str:
    """How the child ended; it is given a moment to do so."""
    try:
        code = child.wait(2)
    except subprocess.TimeoutExpired:
        return "it did not say that it passed"
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
        return f"killed by {name}"
    return f"ended with exit code {code} before its tests were over"


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and whatever shares its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    child.wait()
    if child.stdout is not None:
        child.stdout.close()
