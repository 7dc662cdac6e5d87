"""The conformance kit: what any installed plugin must fulfil, one row a check. Run by `loom check PACKAGE`.

Finds what a distribution registers and hands each thing to the kit of its kind (`conformance_benchmark`, `_metric`,
`_server`, `_prompt`, …). The kit for KV methods on real models belongs to the server that runs them.
"""

from __future__ import annotations

import importlib.metadata
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from loom_core.contract.errors import LoomError, UsageError, nearest
from loom_core.contract.options import build, describe
from loom_core.contract.protocols import Benchmark
from loom_core.contract.specs import (
    AugmentationSpec,
    BenchmarkSpec,
    MetricSpec,
    ReportSpec,
    ServerSpec,
    SuiteSpec,
)
from loom_core.contract.types import Sample, Task
from loom_core.registry.commands import Command, registered
from loom_core.registry.plugins import COMMANDS_GROUP, GROUP, Catalog, Found, installed, resolve
from loom_kit.conformance_benchmark import check_benchmark, some_samples
from loom_kit.conformance_command import check_commands
from loom_kit.conformance_imports import check_imports
from loom_kit.conformance_metric import check_metric
from loom_kit.conformance_prompt import check_prompt_method
from loom_kit.conformance_report import check_report
from loom_kit.conformance_server import check_server
from loom_kit.conformance_strategy import check_strategy
from loom_kit.conformance_suite import check_suite
from loom_kit.protocols import implements
from loom_kit.rows import Row as Row, attempt, contained, reason, rows_told

HEAVY = ("torch", "numpy", "transformers", "datasets")
SAMPLES_OF_A_METRIC = 2


@dataclass(frozen=True, slots=True)
class Given:
    """What the user gives to check with. model: a server is opened on it; None = an installed model, or none.

    Options are texts by name, as on the command line. commands: names that are taken by loom's own commands.
    """

    model: str | None = None
    server_options: Mapping[str, str] = field(default_factory=dict)
    model_options: Mapping[str, str] = field(default_factory=dict)
    commands: frozenset[str] = frozenset()


def check_package(distribution: str, given: Given = Given()) -> Iterator[Row]:
    """Every check that applies to what a distribution registers, or to one thing by its name.

    Raises UsageError when nothing is registered so.
    """
    catalog = installed()
    points, commands = (
        [p for p in importlib.metadata.entry_points(group=group) if p.dist and p.dist.name == distribution]
        for group in (GROUP, COMMANDS_GROUP)
    )
    named = [found for kind in catalog.kinds for found in kind if found.spec.name == distribution]
    if named and not points and not commands:
        for found in named:
            yield from check_imports(found.spec.factory.partition(".")[0], found.distribution)
            yield from check_spec(found, catalog, given)
        return
    if not points and not commands:
        known = {p.dist.name for p in importlib.metadata.entry_points(group=GROUP) if p.dist}
        known |= {found.spec.name for kind in catalog.kinds for found in kind}
        raise UsageError(
            f"no plugin is registered by {distribution!r}", hint=nearest(distribution, known), where=f"group {GROUP}"
        )
    for point in [*points, *commands]:
        yield _import_weight(point.value.partition(":")[0])
    for package in dict.fromkeys(point.value.partition(":")[0].partition(".")[0] for point in [*points, *commands]):
        yield from check_imports(package, distribution)
    for point in commands:
        rows = check_commands(point.name, partial(_commands_of, point), given.commands)
        yield from rows_told(rows, point.name)
    for broken in catalog.broken:
        if broken.distribution == distribution:
            yield Row(broken.name, "registers", False, broken.why)
    for kind in catalog.kinds:
        for found in kind:
            if found.distribution == distribution:
                yield from check_spec(found, catalog, given)


def _commands_of(point: importlib.metadata.EntryPoint) -> list[Command]:
    return registered(point.load(), point.name)


def _import_weight(module: str) -> Row:
    """Registering must not import what takes seconds; looked at in a fresh process."""
    code = f"import sys, {module}; print(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    heavy = done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
    return Row(module, "registers without heavy imports", not heavy, heavy and f"imports {heavy}")


def check_spec(found: Found[Any], catalog: Catalog, given: Given = Given()) -> Iterator[Row]:
    """Every check of one registered thing; whatever it raises is a failed row."""
    return rows_told(_checked(found, catalog, given), found.spec.name)


def _checked(found: Found[Any], catalog: Catalog, given: Given) -> Iterator[Row]:
    name = found.spec.name
    loaded = attempt(name, "factory can be imported", partial(catalog.load, found))
    yield loaded
    for options in ("options", "model_options"):
        kind = getattr(found.spec, options, None)
        if kind is not None:
            yield attempt(name, f"{options} have help texts", partial(_helped, kind))
    if not loaded.passed:
        return
    if optional := implements(found.spec, catalog.load(found)):
        yield Row(name, f"implements: {', '.join(optional)}", True)
    match found.spec:
        case BenchmarkSpec():
            yield from check_benchmark(found.spec, partial(_opened, found, catalog), partial(_metrics, catalog))
        case MetricSpec():
            samples, needs = _samples_for(name, catalog)
            yield from check_metric(found.spec, catalog.load(found), samples, needs=needs)
        case ServerSpec():
            yield from _check_server(found, catalog, given)
        case AugmentationSpec():
            yield attempt(name, "declares its source and needs", partial(_declared, found.spec))
            if found.spec.kind == "model":
                yield from _check_method(found, catalog)
            elif found.spec.kind == "prompt":
                yield from check_prompt_method(found.spec, catalog.load(found))
            else:
                yield from check_strategy(found.spec, catalog.load(found))
        case ReportSpec():
            yield from check_report(found.spec, catalog.load(found))
        case SuiteSpec():
            yield from check_suite(found.spec, lambda: Path(catalog.make(found)), catalog)


def _opened(found: Found[BenchmarkSpec], catalog: Catalog) -> Benchmark:
    benchmark: Benchmark = catalog.load(found)(build(found.spec.options, {}, owner=found.spec.name))
    return benchmark


def _metrics(catalog: Catalog, task: Task) -> dict[str, tuple[MetricSpec, Any]]:
    found = {name: catalog.metrics.get(name) for name in task.metrics}
    return {name: (one.spec, catalog.load(one)()) for name, one in found.items()}


def _samples_for(metric: str, catalog: Catalog) -> tuple[tuple[Sample, ...], str]:
    """Samples of a task that names a metric, from data at hand; else why there are none ("" if no task names it)."""
    why = ""
    for found in catalog.benchmarks:
        try:
            with contained():
                benchmark = _opened(found, catalog)
                tasks = [task for task in benchmark.tasks(()) if metric in task.metrics]
        except Exception:  # noqa: BLE001 - another plugin's fault is not this metric's
            continue
        for task in tasks:
            try:
                with contained():
                    return tuple(some_samples(benchmark, task)[:SAMPLES_OF_A_METRIC]), ""
            except Exception as error:  # noqa: BLE001 - as above
                why = why or f"{found.spec.name}:{task.name}: {reason(error)}"
    return (), why


def _check_server(found: Found[ServerSpec], catalog: Catalog, given: Given) -> Iterator[Row]:
    """A server on the model that was given, on one that is installed for it, or on a name (then without a network)."""
    spec = found.spec
    own = [str(catalog.load(model)()) for model in catalog.models if model.spec.server == spec.name]
    model, known = given.model or next(iter(own), "check"), given.model is not None or bool(own)
    try:
        server = catalog.load(found)(build(spec.options, given.server_options, owner=f"server {spec.name}"))
        options = build(spec.model_options, given.model_options, owner=f"model of {spec.name}")
    except LoomError as error:
        yield Row(spec.name, "opens a model", given.model is None, reason(error), checked=given.model is not None)
        return
    except Exception as error:  # noqa: BLE001 - whatever a server raises is its result
        yield Row(spec.name, "is built of its options", False, reason(error))
        return
    if known:
        yield from check_server(spec, server, model, options, given=True)
        return
    with _no_network():
        yield from check_server(spec, server, model, options)


@contextmanager
def _no_network() -> Iterator[None]:
    """Nobody's endpoint is asked about a model that the user did not name."""

    def refuse(*_: object, **__: object) -> Any:
        raise OSError("no endpoint is asked without --model")

    saved, offline = (socket.socket.connect, socket.getaddrinfo), os.environ.get("HF_HUB_OFFLINE")
    socket.socket.connect, socket.getaddrinfo = refuse, refuse  # type: ignore[method-assign]
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        socket.socket.connect, socket.getaddrinfo = saved  # type: ignore[method-assign]
        os.environ.pop("HF_HUB_OFFLINE")
        if offline is not None:
            os.environ["HF_HUB_OFFLINE"] = offline


def _check_method(found: Found[AugmentationSpec], catalog: Catalog) -> Iterator[Row]:
    """The rules of methods, by the kit of every server that can run this one."""
    able = [s for s in catalog.servers if s.spec.kit and found.spec.requires <= s.spec.capabilities]
    if not able:
        why = "no installed server that can run it has a kit (pip install loom-server-hf)"
        yield Row(found.spec.name, "U1 to U9", True, why, checked=False)
    for server in able:
        yield from resolve(server.spec.kit)(found)


def _helped(kind: type) -> None:
    silent = [row["name"] for row in describe(kind) if not row["help"]]
    assert not silent, f"no help text: {', '.join(silent)}: declare options with option(…, help=…)"


def _declared(spec: AugmentationSpec) -> None:
    assert spec.source or spec.kind != "model", "a method names its paper or the definition it follows"
    assert spec.kind != "model" or "local_model" in spec.requires, "a model augmentation requires local_model"
