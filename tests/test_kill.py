"""SIGKILL at random moments, continued with other numbers of workers: nothing lost, nothing twice, nothing changed.

Each case is one command line that is run once undisturbed and once killed again and again; what both recorded must be
equal in every field but times, bytes and `n_cached`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by /proc")

ORPHANS_GONE_SECONDS = 10.0
PASSING_FIELDS = ("timing", "prepared_seconds", "rewriting_cost", "peak_bytes", "n_cached")
PASSING_KV_FIELDS = ("bytes_dense", "bytes_held")


@dataclass(frozen=True)
class Case:
    """A command line to kill. needs: modules without which it is skipped. metric: the scores that are compared too."""

    command: tuple[str, ...]
    n_calls: int
    metric: str
    kills: int = 20
    needs: tuple[str, ...] = ()
    workers: tuple[int, ...] = (1, 2, 3)
    slow: tuple[str, ...] = ()


CASES = [
    pytest.param(
        Case(
            command=("fable@n=20,turns=2", "--model", "toy", "--accel", "fable_head", "--accel", "fable_again"),
            n_calls=320,
            metric="fable_exact@1",
            slow=("--server-option", "seconds=0.005"),
        ),
        id="double",
    ),
    pytest.param(
        Case(
            command=(
                "passkey@words={64,128},depths=10,repeats=8",
                "--accel",
                "snapkv:budget=64",
                "--accel",
                "random:budget=64",
            ),
            n_calls=480,
            metric="passkey_exact@1",
            needs=("torch", "loom_server_hf", "loom_bench_passkey", "loom_accel_snapkv", "loom_model_tiny"),
            workers=(1, 2),
        ),
        id="hf",
    ),
    pytest.param(
        Case(  # the suite that `loom run` starts with, cut short
            command=("--limit", "8"),
            n_calls=32,
            metric="passkey_exact@1",
            kills=2,
            needs=("torch", "loom_server_hf", "loom_bench_passkey", "loom_accel_snapkv", "loom_model_tiny"),
            workers=(2, 1),
        ),
        id="quickstart",
    ),
]


def told(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what may differ from run to run."""
    kept = {name: value for name, value in record.items() if name not in PASSING_FIELDS}
    if kept["kv"]:
        kept["kv"] = {name: value for name, value in kept["kv"].items() if name not in PASSING_KV_FIELDS}
    return kept


def outcome(loom: Any, folder: Path, metric: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a run recorded, by call key, each exactly once; and its scores."""
    records = loom.records(folder)
    assert all(record["finish"] != "error" for record in records)
    twice = {key: n for key, n in Counter(record["key"] for record in records).items() if n > 1}
    assert twice == {}, "recorded twice"
    scores = sorted(loom.scores(metric, folder), key=lambda score: str(score["key"]))
    return {record["key"]: told(record) for record in records}, scores


def size(folder: Path) -> int:
    """Bytes recorded so far."""
    path = folder / "responses.jsonl"
    return path.stat().st_size if path.exists() else 0


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until something holds; False when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def workers_of(loom: Any, parent: int) -> list[int]:
    """The running workers."""
    return [process for process in loom.processes() if process != parent]


def kill_at_random(
    loom: Any, child: subprocess.Popen[str], folder: Path, draw: random.Random, record_bytes: int
) -> str:
    """Let it work for a while that is drawn, then kill the parent, a worker before it, or all; says what was done."""
    how = draw.choice(["while starting", "parent", "parent", "worker, then parent", "all at once"])
    if how == "while starting":
        time.sleep(draw.uniform(0.0, 0.4))
    else:
        enough = size(folder) + record_bytes * draw.uniform(0.2, 10)
        wait(lambda: size(folder) >= enough or child.poll() is not None, 60)
    if how == "worker, then parent" and (workers := workers_of(loom, child.pid)):
        kill(draw.choice(workers))
        time.sleep(draw.uniform(0.0, 0.2))
    workers = workers_of(loom, child.pid) if how == "all at once" else []
    kill(child.pid)
    for worker in workers:
        kill(worker)
    said = "".join(child.communicate(timeout=30))
    assert child.returncode == -signal.SIGKILL, f"over before it could be killed (make the case longer): {said}"
    return how


def kill(process: int) -> None:
    """SIGKILL, where the process still runs."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


WITH_A_MODEL = [param.values[0] for param in CASES if param.values[0].needs]


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_equals_an_undisturbed_one(loom: Any, case: Case, of_the_day: Any) -> None:
    if case in WITH_A_MODEL:
        of_the_day(case, WITH_A_MODEL)
    for module in case.needs:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    whole, broken = loom.cwd / "whole", loom.cwd / "broken"
    loom("run", *case.command, "--out", whole)
    record_bytes = size(whole) // case.n_calls
    seed = random.randrange(2**32)
    draw, hows = random.Random(seed), Counter[str]()
    print(f"seed {seed}")
    for number in range(case.kills):
        workers = str(case.workers[number % len(case.workers)])
        child = loom.start("run", *case.command, *case.slow, "--out", broken, "--workers", workers)
        hows[kill_at_random(loom, child, broken, draw, record_bytes)] += 1
        assert wait(lambda: loom.processes() == [], ORPHANS_GONE_SECONDS), "workers outlive their parent"
    loom("run", *case.command, "--out", broken, "--workers", "2")
    expected, scores = outcome(loom, whole, case.metric)
    found, scores_again = outcome(loom, broken, case.metric)
    assert len(expected) == case.n_calls
    assert found.keys() == expected.keys(), "lost or asked for nothing"
    differing = {key: (expected[key], found[key]) for key in expected if expected[key] != found[key]}
    assert differing == {}
    assert scores_again == scores
    manifest = json.loads((broken / "manifest.json").read_text("utf-8"))
    assert manifest["workers"], hows
