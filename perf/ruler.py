"""RULER samples at 128k tokens, as JSON: what the generator takes, and what the one tokenisation afterwards takes.

Run `python perf/ruler.py`. Every task of loom's variant makes 20 samples with the embedded model's tokenizer. For each:
seconds until the first sample (filler is measured once, a sample is tokenised as a whole to check the sums), the median
and the mean of the generator for the samples after it, the median of tokenising a sample as the plan does, the greatest
distance from the length asked for, and the process's peak memory after 2 samples and after all. Goal: a median of at
most 20 ms a sample without the tokenisation; memory that does not grow with samples. On a busy machine read the CPU
columns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loom_core.api import DataDir, Sample, Task, Tokenizer, installed
from loom_core.api.serving import render
from loom_core.run.config import RunConfig
from loom_core.run.selection import Chosen, select

GOAL_MILLISECONDS = 20.0


def peak_mebibytes() -> float:
    """The most memory this process has held."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def timed(samples: Iterator[Sample]) -> Iterator[tuple[float, float, Sample]]:
    """(wall, CPU) milliseconds that each sample took, and the sample."""
    while True:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            sample = next(samples)
        except StopIteration:
            return
        yield 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu), sample


def measure(chosen: Chosen, task: Task, tokenizer: Tokenizer, length: int) -> dict[str, Any]:
    """One task's figures."""
    data = DataDir.from_environment(offline=True)
    walls, cpus, renders, off, peaks = [], [], [], [], []
    for wall, cpu, sample in timed(chosen.benchmark.samples(task, data, tokenizer, (length,))):
        began = time.process_time()
        tokens = len(render(sample.prompt, tokenizer, chat=task.chat).token_ids or ())
        renders.append(1000 * (time.process_time() - began))
        walls.append(wall)
        cpus.append(cpu)
        off.append(tokens / length - 1)
        peaks.append(peak_mebibytes())
    later = slice(1, None)
    return {
        "task": task.name,
        "samples": len(walls),
        "first_sample_seconds": round(walls[0] / 1000, 3),
        "generator_median_ms": round(statistics.median(walls[later]), 1),
        "generator_mean_ms": round(statistics.fmean(walls[later]), 1),
        "generator_cpu_median_ms": round(statistics.median(cpus[later]), 1),
        "tokenisation_cpu_median_ms": round(statistics.median(renders[later]), 1),
        "farthest_from_length_percent": round(100 * max(off, key=abs), 2),
        "peak_mib_after_2": peaks[min(1, len(peaks) - 1)],
        "peak_mib_after_all": peaks[-1],
    }


def main() -> None:
    """Print the figures of all tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=131072)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--model", default=None, help="a model whose tokenizer is used; default: the embedded one")
    given = parser.parse_args()
    values = {"benchmarks": [f"ruler@samples={given.samples}"], "model": given.model}
    selection = select(RunConfig().merged(values, "perf"), installed())
    tokenizer = selection.describe().tokenizer
    assert tokenizer is not None, "this model's server keeps its tokenizer to itself"
    rows = []
    for chosen, task, _ in selection.tasks():
        rows.append(measure(chosen, task, tokenizer, given.length))
    within = all(row["generator_cpu_median_ms"] <= GOAL_MILLISECONDS for row in rows)
    head = {"length": given.length, "tokenizer": Path(selection.model_name).name, "goal_ms": GOAL_MILLISECONDS}
    print(json.dumps({**head, "within_goal_by_cpu": within, "tasks": rows}, indent=1))


if __name__ == "__main__":
    main()
