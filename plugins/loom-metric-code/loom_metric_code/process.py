"""One answer with its tests in one confined child: started, timed, killed, and its verdict read. Knows no model.

The child (`inside`) confines itself before it runs anything, and tells the parent so; what cannot be confined is not
run. It has no environment, no input, no file but Python's library, and makes no processes: killing its group ends
all.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from loom_core.api import Json
from loom_metric_code.judge import NAMED, OTHER

INSIDE = Path(__file__).with_name("inside.py")
START_SECONDS = 20.0
"""What the child may take to start Python before its own time begins; on a busy machine that is long."""
MOST_BYTES = 4096
SHOWN = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime",
    "/usr/share/zoneinfo",
)  # fmt: skip
"""The system's shared libraries and time zones, which Python's modules need."""
OWN_WORDS = ("ended with exit code ", "killed by SIG", "answered with something other than data")


class Unconfined(Exception):
    """The child could not be confined here, and why; nothing was run."""


class NotSplit(Exception):
    """Tests that cannot run apart from the answer, and why; there is no verdict."""


@dataclass(frozen=True, slots=True)
class Program:
    """An answer and what it is judged by. prompt: stands before the answer; entry: what `check` is called with."""

    answer: str
    tests: str = ""
    prompt: str = ""
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a program ended. passed: its tests ran to their end. why: "passed", "raised NAME", "time: …", "killed by …".

    walls: what confined it. objects: whether the tests worked with objects of the answer's own classes, whose methods
    they had to trust.
    """

    passed: bool
    why: str
    walls: str = ""
    objects: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take. seconds: wall clock, and processor time rounded up; memory_bytes: for each process."""

    seconds: float
    memory_bytes: int
    confine: Literal["kernel", "audit"] = "kernel"


@cache
def _python() -> dict[str, Json]:
    """What the child may read (`library`: the standard library first) and import from (`path`)."""
    paths = sysconfig.get_paths()
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    standard = [
        path for path in sys.path if path.startswith((paths["stdlib"], paths["platstdlib"])) or path.endswith(".zip")
    ]
    path = list(dict.fromkeys([paths["stdlib"], *standard, *packages]))
    shared = sysconfig.get_config_var("LIBDIR")
    library = [*path, paths["platstdlib"], *([shared] if isinstance(shared, str) and Path(shared).is_dir() else [])]
    return {"library": [os.path.realpath(library[0]), *library], "path": path}


def run(program: Program, limits: Limits) -> Verdict:
    """Run an answer and its tests within limits.

    Raises Unconfined where this system cannot confine it as asked, NotSplit for tests that need the answer's process.
    """
    with tempfile.TemporaryDirectory(prefix="loom-code-") as folder:
        order = {
            "seconds": math.ceil(limits.seconds),
            "memory_bytes": limits.memory_bytes,
            "confine": limits.confine,
            "shown": list(SHOWN),
            **_python(),
        }
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(INSIDE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            return _watched(child, order, program, limits.seconds)
        finally:
            _end(child)


def _watched(child: subprocess.Popen[bytes], order: dict[str, Any], program: Program, seconds: float) -> Verdict:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(json.dumps(order).encode() + b"\n")
        child.stdin.flush()
    ready, _, walls = (_line(child, START_SECONDS) or "").partition(" ")
    if ready != "ready":
        reason = walls if ready == "unconfined" else f"the child ended before it was confined ({_how(child)})"
        raise Unconfined(reason)
    texts = {"prompt": program.prompt, "answer": program.answer, "tests": program.tests, "entry": program.entry}
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(json.dumps(texts).encode())
        child.stdin.close()
    last = _line(child, seconds)
    if last is None:
        return Verdict(False, f"time: more than {seconds:g} s", walls)
    return _read(last, child, walls)


def _read(said: str, child: subprocess.Popen[bytes], walls: str) -> Verdict:
    """The judge's word, in the fixed vocabulary of verdicts."""
    try:
        verdict = dict(json.loads(said))
    except (ValueError, TypeError):
        return Verdict(False, _how(child), walls)
    objects = verdict.get("objects") is True
    if "unsplit" in verdict:
        raise NotSplit(str(verdict["unsplit"]))
    if verdict.get("passed") is True:
        return Verdict(True, "passed", walls, objects)
    failed = str(verdict.get("failed", ""))
    if failed.startswith(OWN_WORDS) and failed.isascii() and failed.isprintable():
        return Verdict(False, failed, walls, objects)
    name = verdict.get("raised")
    return Verdict(False, f"raised {name if name in NAMED else OTHER}", walls, objects)


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
    """How the child ended; it is given a moment to do so. It is not yet reaped: its number still names its group."""
    if not hasattr(os, "waitid"):
        return "it did not say how it ended"
    end = time.monotonic() + 2
    while (ended := os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)) is None:
        if time.monotonic() > end:
            return "it did not say how it ended"
        time.sleep(0.005)
    if ended.si_code != os.CLD_EXITED:
        known = ended.si_status in signal.valid_signals()
        return f"killed by {signal.Signals(ended.si_status).name if known else ended.si_status}"
    return f"ended with exit code {ended.si_status} before its tests were over"


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and whatever shares its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
