"""RULER samples at 128k tokens, as JSON: what the generator takes, and what the one tokenisation afterwards takes.

Run `python perf/ruler.py`. Every task of loom's variant makes 20 samples with the embedded model's tokenizer. For each:
seconds until the first sample (filler is measured once, a sample is tokenised as a whole to check the sums), the median
and the mean of the generator for the samples after it, the median of tokenising a sample as the plan does, the greatest
distance from the length asked for, and the process's peak memory after 2 samples and after all. Goal: a median of at
most 20 ms a sample without the tokenisation; memory that does not grow with samples. On a busy machine read the CPU
columns.

Run `python perf/ruler.py --variant official --data-dir MIRROR` for the authors' thirteen tasks under three kinds of
tokenizer: the embedded model's, cl100k_base (GPT-4) and cl100k_base with the turns of Llama 3 (these two where a cache
of tiktoken is at hand, see `loom_kit.tokenizers`). For each task: whether it is refused, the least, mean and
greatest number of tokens of prompt and answer, which must be at most the length, and for cwe how many entries of its
lists are no word of wonderwords.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loom_bench_ruler.words import wonderwords_book
from loom_kit.tokenizers import Likeness, cl100k_ranks, write_model_folder

from loom_core.api import DataDir, LoomError, Sample, Task, Tokenizer, installed
from loom_core.api.serving import render
from loom_core.run.config import RunConfig
from loom_core.run.selection import Chosen, described, select

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


def spread(chosen: Chosen, task: Task, tokenizer: Tokenizer, length: int, data: DataDir) -> dict[str, Any]:
    """One official task's lengths under one tokenizer, as the authors count them: the bare prompt and the answer."""
    began = time.process_time()
    row: dict[str, Any] = {"task": task.name}
    try:
        samples = list(chosen.benchmark.samples(task, data, tokenizer, (length,)))
    except LoomError as error:
        return {**row, "refused": f"{error.what}: {error.why}"}
    tokens = [len(tokenizer.encode(sample.prompt.text)) + task.generation.max_tokens for sample in samples]
    row |= {"samples": len(tokens), "least": min(tokens), "mean": round(statistics.fmean(tokens)), "most": max(tokens)}
    row["too_long"] = sum(n > length for n in tokens)
    if task.name == "cwe":
        words = set(wonderwords_book().single)
        entries = [entry for sample in samples for entry in entries_of(sample)]
        row |= {"entries": len(entries), "non_words": sum(entry not in words for entry in entries)}
        row["long_lists"] = samples[0].meta.get("long_lists", "file")
    return {**row, "cpu_seconds": round(time.process_time() - began, 1)}


def entries_of(sample: Sample) -> list[str]:
    """The list of a cwe prompt, without its numbers."""
    return [entry.strip() for entry in re.split(r"(?:^| )\d+\. ", sample.prompt.context)[1:]]


def official(length: int, samples: int, data_dir: str | None, tasks: str) -> Iterator[dict[str, Any]]:
    """A row for each tokenizer and task."""
    catalog, data = installed(), DataDir.from_environment(data_dir, offline=True)
    ranks = cl100k_ranks()
    with tempfile.TemporaryDirectory() as folder:
        models = {"loom-tiny": "loom-tiny"}
        likes: tuple[Likeness, ...] = ("gpt-4", "llama-3")
        for like in likes if ranks else ():
            models[like] = str(write_model_folder(Path(folder, like), like, ranks or {}))
        for name, model in models.items():
            chosen_tasks = f":{tasks}" if tasks else ""
            values = {"benchmarks": [f"ruler@variant=official,samples={samples}{chosen_tasks}"], "model": model}
            config = RunConfig().merged(values, "perf")
            tokenizer = described(config, catalog).tokenizer
            assert tokenizer is not None
            for chosen, task, _ in select(config, catalog).tasks():
                yield {"tokenizer": name, **spread(chosen, task, tokenizer, length, data)}


def main() -> None:
    """Print the figures of all tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=131072)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--model", default=None, help="a model whose tokenizer is used; default: the embedded one")
    parser.add_argument("--variant", choices=["loom", "official"], default="loom")
    parser.add_argument("--data-dir", default=None, help="official: a mirror of the authors' files, or LOOM_DATA")
    parser.add_argument("--tasks", default="", help="official: these tasks only, vt,cwe")
    given = parser.parse_args()
    if given.variant == "official":
        for row in official(given.length, given.samples, given.data_dir, given.tasks):
            print(json.dumps({"length": given.length, **row}), flush=True)
        return
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
