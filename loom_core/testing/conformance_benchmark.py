"""What every benchmark must fulfil: the same samples in any process, whole records, scores as declared.

Knows the contract of benchmarks; knows no benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

from loom_core.contracts import Benchmark
from loom_core.data import DataDir
from loom_core.keys import plain
from loom_core.parity import answer
from loom_core.specs import BenchmarkSpec, MetricSpec
from loom_core.store import sample_from
from loom_core.testing.doubles import ToyTokenizer, oracle_text
from loom_core.testing.rows import Row, attempt, reason
from loom_core.types import Response, Sample, Scored, Task

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
    for task in tasks:
        subject = f"{name}:{task.name}"
        yield attempt(subject, "task is among the registered names", partial(_named, task, spec))
        yield attempt(subject, "samples are the same twice", partial(_twice, opened, task))
        yield attempt(subject, "samples survive JSON", partial(_survive, opened(), task))
        yield attempt(subject, "oracle and null answers score as declared", partial(_scored, opened(), task, metrics))


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
    while benchmark.follow_up(sample, answers) is not None:
        assert len(answers) < MOST_TURNS, "the benchmark asks without end"
        answers.append(answer(oracle_text(sample, len(answers)) if best else ""))
    return answers
