"""What every benchmark must fulfil: the same samples in any process, whole records, scores as declared.

Knows the contract of benchmarks; knows no benchmark.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from loom_parity import answer

from loom_core.contract import border
from loom_core.contract.keys import digest, plain
from loom_core.contract.options import build
from loom_core.contract.protocols import Benchmark
from loom_core.contract.specs import BenchmarkSpec, MetricSpec
from loom_core.contract.types import Response, Sample, Scored, Task
from loom_core.data.access import DataDir, Unavailable
from loom_core.doubles.server import ToyTokenizer, oracle_text
from loom_core.registry.plugins import resolve
from loom_core.run.store import sample_from
from loom_kit.rows import Row, attempt, reason

SAMPLES = 4
TOLERANCE = 1e-8
"""How far a reference may stay from the full score, and an empty answer from the least. Some authors' formulas guard a
denominator: ROUGE of `rouge` 1.0.1 ends 5e-9 below 1 for equal texts. Everything else is exact."""
MOST_TURNS = 8
Metrics = Callable[[Task], Mapping[str, tuple[MetricSpec, Any]]]
"""A task's metrics by name: spec and metric."""


def check_benchmark(spec: BenchmarkSpec, opened: Callable[[], Benchmark], metrics: Metrics) -> Iterator[Row]:
    """One row a rule and task. opened: the benchmark, fresh, with its default options."""
    name = spec.name
    try:
        tasks = opened().tasks(())
    except Exception as error:  # noqa: BLE001 - whatever a benchmark raises is its result
        yield Row(name, "default options give tasks", False, reason(error))
        return
    yield Row(name, "default options give tasks", bool(tasks))
    yield attempt(name, "tasks can be used", partial(border.tasks, tasks, f"benchmark {name}", spec.tasks))
    for task in tasks:
        subject = f"{name}:{task.name}"
        yield attempt(subject, "task is among the registered names", partial(_named, task, spec))
        yield attempt(subject, "samples are the same twice", partial(_twice, opened, task))
        yield attempt(subject, "samples survive JSON", partial(_survive, opened(), task))
        yield attempt(subject, "samples are sound", partial(_sound, opened(), task))
        yield attempt(subject, "oracle and null answers score as declared", partial(_scored, opened(), task, metrics))
    yield attempt(name, "samples are the same in another process", partial(_elsewhere, spec, opened))


def _named(task: Task, spec: BenchmarkSpec) -> None:
    assert task.name in spec.tasks, f"{task.name} is not in {spec.tasks}"


def some_samples(benchmark: Benchmark, task: Task) -> list[Sample]:
    """The first samples of a task, from data at hand. Raises `data.Unavailable` where these are not."""
    data = DataDir.from_environment(offline=True)
    samples = list(islice(benchmark.samples(task, data, ToyTokenizer(), ()), SAMPLES))
    assert samples, "the task has no samples"
    return samples


def _twice(opened: Callable[[], Benchmark], task: Task) -> None:
    first, second = some_samples(opened(), task), some_samples(opened(), task)
    assert first == second, "two readings differ"
    ids = [sample.id for sample in first]
    assert len(set(ids)) == len(ids), "sample ids repeat"


def _survive(benchmark: Benchmark, task: Task) -> None:
    for sample in some_samples(benchmark, task):
        again = sample_from(json.loads(json.dumps(plain(sample))))
        assert plain(again) == plain(sample), f"{sample.id} changes when stored"
        for evidence in sample.evidence:
            text = sample.prompt.segments[evidence.segment].text
            assert 0 <= evidence.start < evidence.end <= len(text), f"evidence of {sample.id} is out of its segment"


def _sound(benchmark: Benchmark, task: Task) -> None:
    """What the parts of a sample say of each other."""
    samples = some_samples(benchmark, task)
    found = []
    for sample in samples:
        assert isinstance(sample.id, str) and sample.id, f"the id {sample.id!r} is not a text"
        assert sample.task == task.name, f"{sample.id} says it is of task {sample.task!r}"
        depth = sample.depth
        assert depth is None or 0 <= depth <= 1, f"{sample.id} has depth={depth:g}: a relative position, 0 to 1"
        beside = "".join(s.text for s in sample.prompt.segments if s.kind in ("question", "instruction"))
        assert beside.strip() or not sample.prompt.context, f"{sample.id} asks nothing: no question, no instruction"
        texts = [text.casefold().strip() for text in sample.references if isinstance(text, str) and text.strip()]
        context = sample.prompt.context.casefold()
        present = [text for text in texts if text in context]
        found.append(bool(present) or not texts or not context)
        if present and sample.evidence and task.capability == "retrieval":
            spans = "\n".join(sample.prompt.segments[e.segment].text[e.start : e.end] for e in sample.evidence)
            held = any(text in spans.casefold() for text in present)
            where = f"the evidence of {sample.id} ({spans[:40]!r}) does not hold the reference, which the context does"
            assert held, f"{where}: Evidence(segment=…, start=…, end=…) counts characters of that segment"
    if task.capability == "retrieval" and task.retrieval:
        assert any(found), (
            "no reference is in its context, though the task is retrieval: nobody can find it (another "
            "capability, if the task asks for something else)"
        )


def _elsewhere(spec: BenchmarkSpec, opened: Callable[[], Benchmark]) -> None:
    """A fresh process with another seed of `hash` reads the same samples."""
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    options = f"{spec.options.__module__}:{spec.options.__qualname__}"
    code = f"from {__name__} import print_digests; print_digests({spec.factory!r}, {options!r})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    if done.returncode:
        raise AssertionError(f"another process cannot read it: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    theirs = json.loads(done.stdout.splitlines()[-1])
    ours = digests(opened())
    other = [task for task in ours if ours[task] != theirs.get(task)]
    assert not other, (
        f"another process reads other samples of {', '.join(other)}: seed random.Random with text, never with hash(), "
        "a set's order or the time"
    )


def digests(benchmark: Benchmark) -> dict[str, str]:
    """By task: the digest of its first samples, "" where its data are not at hand."""
    found = {}
    for task in benchmark.tasks(()):
        try:
            found[task.name] = digest([plain(sample) for sample in some_samples(benchmark, task)])
        except Unavailable:
            found[task.name] = ""
    return found


def print_digests(factory: str, options: str) -> None:
    """`digests` of a benchmark with its default options, as a line of JSON."""
    print(json.dumps(digests(resolve(factory)(build(resolve(options), {}, owner=factory)))))


def _scored(benchmark: Benchmark, task: Task, metrics_of: Metrics) -> None:
    found = metrics_of(task)
    specs = {name: spec for name, (spec, _) in found.items()}
    metrics = {name: metric for name, (_, metric) in found.items()}
    for sample in some_samples(benchmark, task):
        for best in (True, False):
            scored = benchmark.score(sample, _answers(benchmark, sample, best), metrics)
            assert set(scored) >= set(task.metrics), "a metric of the task is missing"
            name = task.metrics[0]
            spec, given_value = specs[name], scored[name]
            if not isinstance(given_value, Scored):
                given_value.close()  # what a judge would say is not the benchmark's to declare
                continue
            value = given_value.value
            wanted = spec.high if best == spec.higher_is_better else spec.low
            given = "a reference" if best else "an empty answer"
            right = value is not None and abs(value - wanted) <= TOLERANCE
            assert right, f"{name} of {given} is {value}, not {wanted} ({sample.id})"


def _answers(benchmark: Benchmark, sample: Sample, best: bool) -> list[Response]:
    """What a double answers in every turn that the benchmark asks for."""
    answers = [answer(oracle_text(sample) if best else "")]
    meta = {name: value for name, value in sample.meta.items() if name not in ("oracle", "oracle_turns")}
    blind = replace(sample, references=(), negatives=(), meta=meta)  # as beside a server
    while benchmark.follow_up(blind, answers) is not None:
        assert len(answers) < MOST_TURNS, "the benchmark asks without end"
        answers.append(answer(oracle_text(sample, len(answers)) if best else ""))
    return answers
