"""What scoring and reporting a very large run costs in memory, as JSON: gigabytes of responses in a made-up run folder.

Run `python perf/stream.py --gigabytes 2`. It writes run folders with as many answers each and longer and longer answers
(half, then all of the gigabytes), scores and reports each in a process of its own, and gives seconds and peak memory.
Goal: the peak does not follow the bytes (flat within 10 %): records are streamed, only compact rows are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GOAL_GROWTH = 1.1
MEBIBYTE = 1 << 20


def made_run(path: Path, n: int, gigabytes: float) -> int:
    """A run of `n` passkey samples on the double server, its answers lengthened; returns the bytes of its responses."""
    from loom_core import pipeline
    from loom_core.api import installed
    from loom_core.cli.progress import Quiet
    from loom_core.run.config import RunConfig
    from loom_core.run.store import RunFolder
    from loom_core.run.writing import to_line

    config = RunConfig().merged(
        {"benchmarks": [f"passkey@words=32,depths=100,repeats={n // 100}"], "model": "toy", "out": str(path)}, "perf"
    )
    pipeline.run(config, installed(), ["perf/stream.py"], Quiet())
    folder = RunFolder(path)
    short = folder.responses.with_suffix(".short")
    folder.responses.rename(short)
    length = int(gigabytes * (1 << 30) / n)
    words = "".join(random.Random(0).choices("abcdefgh ", k=1 << 16))
    filler = words * (length // len(words) + 1)
    with short.open(encoding="ascii") as source, folder.responses.open("w", encoding="ascii") as target:
        for line in source:
            record = json.loads(line)
            target.write(to_line(record | {"text": record["text"] + " " + filler[:length]}))
    short.unlink()
    return folder.responses.stat().st_size


def measured(path: Path) -> dict[str, Any]:
    """Score and report in this process, peak memory after each; with what the same took in imports before."""
    from loom_report import files as report

    from loom_core.api import installed
    from loom_core.pipeline import stored_config
    from loom_core.run.selection import select
    from loom_core.run.store import RunFolder
    from loom_core.score.scoring import score_run

    folder = RunFolder(path)
    selection = select(stored_config(folder), installed())
    before, began = peak_mebibytes(), time.perf_counter()
    score_run(folder, selection)
    scored, middle = peak_mebibytes(), time.perf_counter()
    report.write(folder)
    return {
        "before_mebibytes": before,
        "after_score_mebibytes": scored,
        "after_report_mebibytes": peak_mebibytes(),
        "score_seconds": round(middle - began, 1),
        "report_seconds": round(time.perf_counter() - middle, 1),
        "report_html_mebibytes": round(folder.report_html.stat().st_size / MEBIBYTE, 1),
    }


def peak_mebibytes() -> float:
    """The most memory that this program has held so far. (Not of getrusage: that counts the parent's before exec.)"""
    status = Path("/proc/self/status").read_text("ascii")
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)


def main() -> None:
    """Half of the gigabytes, then all of them, with equally many answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="where the made-up runs are put meanwhile [default: temporary]")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(arguments.measure)))
        return
    rows = []
    for share in (0.5, 1.0):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
            run = Path(place) / "run"
            n_bytes = made_run(run, arguments.samples, share * arguments.gigabytes)
            command = [sys.executable, __file__, "--measure", str(run)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ))
            rows.append({"responses_bytes": n_bytes, **json.loads(done.stdout.splitlines()[-1])})
    growth = rows[1]["after_report_mebibytes"] / rows[0]["after_report_mebibytes"]
    result = {"samples": arguments.samples, "runs": rows, "growth": round(growth, 3), "met": growth <= GOAL_GROWTH}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
