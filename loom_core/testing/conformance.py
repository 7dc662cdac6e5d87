"""The conformance kit: what any installed plugin must fulfil, one row a check. Run by `loom check PACKAGE`.

Checks contracts, not quality: registration, import weight, options, determinism, oracle and null scores. The kit for
KV methods on real models belongs to the server that runs them.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from loom_core.contracts import Benchmark
from loom_core.data import DataDir, Unavailable
from loom_core.errors import LoomError, UsageError, nearest
from loom_core.keys import plain
from loom_core.options import build, describe
from loom_core.plugins import GROUP, Catalog, Found, installed, resolve
from loom_core.specs import AugmentationSpec, BenchmarkSpec
from loom_core.store import sample_from
from loom_core.testing.doubles import ToyTokenizer, oracle_text
from loom_core.types import Response, Sample, Scored, Task, Timing

HEAVY = ("torch", "numpy", "transformers", "datasets")
SAMPLES = 4
TOLERANCE = 1e-8
"""How far a reference may stay from the full score, and an empty answer from the least. Some authors' formulas guard a
denominator: ROUGE of `rouge` 1.0.1 ends 5e-9 below 1 for equal texts. Everything else is exact."""
MOST_TURNS = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One check of one subject. why: what failed, or what could not be tried here."""

    subject: str
    check: str
    passed: bool
    why: str = ""


def check_package(distribution: str) -> Iterator[Row]:
    """Every check that applies to what a distribution registers, or to one thing by its name.

    Raises UsageError when nothing is registered so.
    """
    catalog = installed()
    points = [p for p in importlib.metadata.entry_points(group=GROUP) if p.dist and p.dist.name == distribution]
    named = [found for kind in catalog.kinds for found in kind if found.spec.name == distribution]
    if named and not points:
        for found in named:
            yield from _check_spec(found, catalog)
        return
    if not points:
        known = {p.dist.name for p in importlib.metadata.entry_points(group=GROUP) if p.dist}
        known |= {found.spec.name for kind in catalog.kinds for found in kind}
        raise UsageError(
            f"no plugin is registered by {distribution!r}", hint=nearest(distribution, known), where=f"group {GROUP}"
        )
    for point in points:
        yield _import_weight(point.value.partition(":")[0])
    for broken in catalog.broken:
        if broken.distribution == distribution:
            yield Row(broken.name, "registers", False, broken.why)
    for kind in catalog.kinds:
        for found in kind:
            if found.distribution == distribution:
                yield from _check_spec(found, catalog)


def _import_weight(module: str) -> Row:
    """Registering must not import what takes seconds; looked at in a fresh process."""
    code = f"import sys, {module}; print(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    heavy = done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
    return Row(module, "registers without heavy imports", not heavy, heavy and f"imports {heavy}")


def _check_spec(found: Found[Any], catalog: Catalog) -> Iterator[Row]:
    name = found.spec.name
    yield _attempt(name, "factory can be imported", partial(catalog.load, found))
    for field in ("options", "model_options"):
        kind = getattr(found.spec, field, None)
        if kind is not None:
            yield _attempt(name, f"{field} have help texts", partial(_helped, kind))
    if isinstance(found.spec, BenchmarkSpec):
        yield from _check_benchmark(found, catalog)
    if isinstance(found.spec, AugmentationSpec):
        yield _attempt(name, "declares its source and needs", partial(_declared, found.spec))
        if found.spec.kind == "model":
            yield from _check_method(found, catalog)


def _check_method(found: Found[AugmentationSpec], catalog: Catalog) -> Iterator[Row]:
    """The rules of methods, by the kit of every server that can run this one."""
    able = [s for s in catalog.servers if s.spec.kit and found.spec.requires <= s.spec.capabilities]
    if not able:
        yield Row(found.spec.name, "U1 to U9", True, "not tried: no installed server that can run it has a kit")
    for server in able:
        yield from resolve(server.spec.kit)(found)


def _attempt(subject: str, check: str, trial: Callable[[], Any]) -> Row:
    try:
        trial()
    except Unavailable as error:
        return Row(subject, check, True, f"not tried: {error.what}")
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is this check's result
        why = error.what if isinstance(error, LoomError) else f"{type(error).__name__}: {error}"
        return Row(subject, check, False, why)
    return Row(subject, check, True)


def _helped(kind: type) -> None:
    silent = [row["name"] for row in describe(kind) if not row["help"]]
    assert not silent, f"no help text: {', '.join(silent)}"


def _declared(spec: AugmentationSpec) -> None:
    assert spec.source or spec.kind != "model", "a method names its paper or the definition it follows"
    assert spec.kind != "model" or "local_model" in spec.requires, "a model augmentation requires local_model"


def _check_benchmark(found: Found[BenchmarkSpec], catalog: Catalog) -> Iterator[Row]:
    name = found.spec.name

    def opened() -> Benchmark:
        benchmark: Benchmark = catalog.load(found)(build(found.spec.options, {}, owner=name))
        return benchmark

    try:
        tasks = opened().tasks(())
    except Exception as error:  # noqa: BLE001 - as above
        yield Row(name, "default options give tasks", False, f"{type(error).__name__}: {error}")
        return
    yield Row(name, "default options give tasks", bool(tasks))
    for task in tasks:
        subject = f"{name}:{task.name}"
        yield _attempt(subject, "task is among the registered names", partial(_named, task, found.spec))
        yield _attempt(subject, "samples are the same twice", partial(_twice, opened, task))
        yield _attempt(subject, "samples survive JSON", partial(_survive, opened(), task))
        yield _attempt(subject, "oracle and null answers score as declared", partial(_scored, opened(), task, catalog))


def _named(task: Task, spec: BenchmarkSpec) -> None:
    assert task.name in spec.tasks, f"{task.name} is not in {spec.tasks}"


def _some(benchmark: Benchmark, task: Task) -> list[Sample]:
    data = DataDir.from_environment(offline=True)
    samples = list(islice(benchmark.samples(task, data, ToyTokenizer(), ()), SAMPLES))
    assert samples, "the task has no samples"
    return samples


def _twice(opened: Callable[[], Benchmark], task: Task) -> None:
    first, second = _some(opened(), task), _some(opened(), task)
    assert first == second, "two readings differ"
    ids = [sample.id for sample in first]
    assert len(set(ids)) == len(ids), "sample ids repeat"


def _survive(benchmark: Benchmark, task: Task) -> None:
    for sample in _some(benchmark, task):
        again = sample_from(json.loads(json.dumps(plain(sample))))
        assert plain(again) == plain(sample), f"{sample.id} changes when stored"
        for evidence in sample.evidence:
            text = sample.prompt.segments[evidence.segment].text
            assert 0 <= evidence.start < evidence.end <= len(text), f"evidence of {sample.id} is out of its segment"


def _scored(benchmark: Benchmark, task: Task, catalog: Catalog) -> None:
    specs = {name: catalog.metrics.get(name).spec for name in task.metrics}
    metrics = {name: catalog.load(catalog.metrics.get(name))() for name in task.metrics}
    for sample in _some(benchmark, task):
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
    answers = [_response(oracle_text(sample) if best else "")]
    while benchmark.follow_up(sample, answers) is not None:
        assert len(answers) < MOST_TURNS, "the benchmark asks without end"
        answers.append(_response(oracle_text(sample, len(answers)) if best else ""))
    return answers


def _response(text: str) -> Response:
    timing = Timing(queued=0.0, started=0.0, first_token=0.0, ended=0.0)
    return Response(key="", text=text, finish="stop", n_in=0, n_out=0, timing=timing)
