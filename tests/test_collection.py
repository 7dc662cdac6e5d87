"""The suite is the same suite in every process: the ids of its tests depend on no clock, no hash seed, no locale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
YEAR = 365.25 * 24 * 3600

COLLECT = """
import sys, time
import pytest

shift = float(sys.argv[1])
now, local, universal = time.time, time.localtime, time.gmtime
time.time = lambda: now() + shift
time.localtime = lambda seconds=None: local(time.time() if seconds is None else seconds)
time.gmtime = lambda seconds=None: universal(time.time() if seconds is None else seconds)
sys.exit(pytest.main(["--collect-only", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]))
"""


def start(shift: float, **environment: str) -> subprocess.Popen[str]:
    """A collection of the whole suite whose clock is `shift` seconds ahead."""
    return subprocess.Popen(
        [sys.executable, "-c", COLLECT, str(shift)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def ids(collection: subprocess.Popen[str]) -> list[str]:
    """The ids in the order of their collection, without pytest's closing line (it tells the seconds)."""
    out, _ = collection.communicate()
    assert collection.returncode == 0, out[-2000:]
    return [line for line in out.splitlines() if "::" in line]


def test_two_processes_collect_the_same_tests() -> None:
    """Workers of pytest-xdist each collect for themselves and stop the run when their lists differ."""
    first = start(0.0, PYTHONHASHSEED="1")
    second = start(1.37 * YEAR, PYTHONHASHSEED="2", LC_ALL="C", TZ="Asia/Tokyo")
    found = ids(first)
    assert len(found) > 1000
    assert len(set(found)) == len(found)
    assert ids(second) == found
