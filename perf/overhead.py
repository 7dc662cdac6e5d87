"""What loom itself costs for each sample, as JSON: whole runs on the double server, which echoes and runs no model.

Run `python perf/overhead.py`. It plans, asks, stores, scores and reports passkey samples of 32 words in fresh folders,
1,000 and 10,000 of them, and gives seconds, milliseconds per sample and the parent's peak memory. Goals: at most 2 ms
per sample at 10,000 samples; peak memory that hardly grows (loom keeps an index and compact rows, and no text). On a
busy machine read the CPU seconds, of parent and worker together.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GOAL_MILLISECONDS = 2.0
MEBIBYTE = 1 << 20


def measured_run(n: int, out: Path) -> dict[str, Any]:
    """One run in this process, its stages timed apart. Called in a process of its own: peak memory cannot be reset."""
    from loom_report import files as report

    from loom_core import pipeline
    from loom_core.api import installed
    from loom_core.cli.progress import Quiet
    from loom_core.run.config import RunConfig
    from loom_core.run.runner import Runner

    stages: dict[str, float] = {}
    peaks: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                stages[name] = round(time.perf_counter() - began, 3)
                peaks[name] = peak_mebibytes()

        return wrapper

    for owner, name, label in (
        (pipeline, "prepare", "prepare"),
        (Runner, "run", "generate"),
        (pipeline, "score_run", "score"),
        (report, "write", "report"),
    ):
        setattr(owner, name, timed(label, getattr(owner, name)))
    config = RunConfig().merged(
        {
            "benchmarks": [f"passkey@words=32,depths=100,repeats={n // 100}"],
            "model": "toy",
            "server_options": {"answers": "echo"},
            "out": str(out),
        },
        "perf",
    )
    began = time.perf_counter()
    result = pipeline.run(config, installed(), ["perf/overhead.py"], Quiet())
    total = time.perf_counter() - began
    assert result.outcome.ended == n, result.outcome
    return {
        "samples": n,
        "seconds": round(total, 3),
        "milliseconds_per_sample": round(1000 * total / n, 3),
        "cpu_seconds": round(sum(cpu_seconds(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)), 3),
        "stages_seconds": stages,
        "parent_peak_mebibytes": peak_mebibytes(),
        "parent_peak_mebibytes_after": peaks,
        "run_folder_mebibytes": round(sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / MEBIBYTE, 1),
    }


def peak_mebibytes() -> float:
    """The most memory that this process has held so far (Linux counts in KiB)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def cpu_seconds(who: int) -> float:
    """CPU time of this process, or of the children it has waited for."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Each size in a fresh process and folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--samples", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--in-process", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        print(json.dumps(measured_run(arguments.samples[0], arguments.in_process)))
        return
    rows = []
    for n in arguments.samples:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--samples", str(n), "--in-process", str(Path(folder) / "run")]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ))
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    least, most = rows[0], rows[-1]
    added = most["samples"] - least["samples"]
    result: dict[str, Any] = {
        "runs": rows,
        "goal_milliseconds": GOAL_MILLISECONDS,
        "met": most["milliseconds_per_sample"] <= GOAL_MILLISECONDS,
    }
    if added:
        grown = (most["parent_peak_mebibytes"] - least["parent_peak_mebibytes"]) * 1024 / added
        result["added_milliseconds_per_sample"] = round(1000 * (most["seconds"] - least["seconds"]) / added, 3)
        result["added_peak_kibibytes_per_sample"] = round(grown, 3)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
