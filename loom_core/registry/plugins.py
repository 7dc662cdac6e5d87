"""Find plugins, load them one at a time, name the origin of what they register. Imports no factory until it is used.

A plugin that raises is listed as broken with its reason and stops nobody; two plugins that claim one name are told
apart by their distributions, and the later one is refused.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import math
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Generic, TypeVar

import pluggy

from loom_core import __version__
from loom_core.contract import hookspecs
from loom_core.contract.errors import LoomError, PluginError, UsageError, nearest
from loom_core.contract.foreign import visible
from loom_core.contract.guard import described, guarded
from loom_core.contract.shapes import misfit, shown
from loom_core.contract.specs import (
    AugmentationSpec,
    BenchmarkSpec,
    ExecutorSpec,
    JobSourceSpec,
    MetricSpec,
    ModelSpec,
    ReportSpec,
    RunReportSpec,
    ServerSpec,
    Spec,
    SuiteSpec,
)
from loom_core.registry.hosted import HostedBenchmark, HostedServer

GROUP = "loom"
COMMANDS_GROUP = "loom.commands"
S = TypeVar("S", bound=Spec)


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin, or one of its specs, that cannot be used, and why."""

    name: str
    distribution: str
    why: str


@dataclass(frozen=True, slots=True)
class Found(Generic[S]):
    """A spec and the distribution it comes from."""

    spec: S
    distribution: str
    distribution_version: str


class Kind(Generic[S]):
    """All registered specs of one kind, by name."""

    def __init__(self, noun: str, hook: str, spec_type: type[S]) -> None:
        self.noun, self.hook, self.spec_type = noun, hook, spec_type
        self._found: dict[str, Found[S]] = {}

    def __iter__(self) -> Iterator[Found[S]]:
        return iter(sorted(self._found.values(), key=lambda found: found.spec.name))

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def add(self, found: Found[S]) -> None:
        """Register; raises PluginError where the name is taken or the spec is of another type."""
        if not issubclass(type(found.spec), self.spec_type):
            raise PluginError(f"{self.hook} returned {found.spec!r:.100}, not a {self.spec_type.__name__}")
        if why := _fault(found.spec):
            raise PluginError(f"{self.hook} returned a {self.spec_type.__name__} that cannot be used: {why}")
        if other := self._found.get(found.spec.name):
            raise PluginError(
                f"{self.noun} {found.spec.name!r} is already registered by {other.distribution}",
                hint=f"uninstall {found.distribution} or {other.distribution}",
            )
        self._found[found.spec.name] = found

    def get(self, name: str) -> Found[S]:
        """The spec of that name; raises UsageError with near names."""
        if name not in self._found:
            raise UsageError(
                f"unknown {self.noun} {name!r}",
                hint=nearest(name, self._found) + f" (loom list {self.noun}s)",
            )
        return self._found[name]


def _fault(spec: Any) -> str:
    """What a spec says that it may not say; "" where all is well."""
    for name, kind in typing.get_type_hints(type(spec)).items():
        value = getattr(spec, name)
        if kind is float:  # a range without an end is infinite there
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
            why = None if number else f"expected a number, got {shown(value)}"
        else:
            why = misfit(value, kind)
        if why is None and name in ("name", "version", "factory") and not value.strip():
            why = "it is empty"
        if why is None and kind is type and not is_dataclass(value):
            why = f"expected a dataclass, got {shown(value)}"
        if why:
            return f"{name}: {why}"
    for name, value in (("name", spec.name), ("version", spec.version)):
        if not value.isprintable():
            return f"{name}: {value!r} does not print"
        if isinstance(spec, MetricSpec) and (len(value) > LONGEST or "/" in value):  # scores lie in a file of that name
            return f"{name}: {value!r:.100} cannot be part of a file's name"
    return "low: it is not below high" if isinstance(spec, MetricSpec) and spec.low >= spec.high else ""


@dataclass
class Catalog:
    """Everything that is installed."""

    benchmarks: Kind[BenchmarkSpec] = field(default_factory=lambda: Kind("benchmark", "loom_benchmarks", BenchmarkSpec))
    servers: Kind[ServerSpec] = field(default_factory=lambda: Kind("server", "loom_servers", ServerSpec))
    augmentations: Kind[AugmentationSpec] = field(
        default_factory=lambda: Kind("augmentation", "loom_augmentations", AugmentationSpec)
    )
    metrics: Kind[MetricSpec] = field(default_factory=lambda: Kind("metric", "loom_metrics", MetricSpec))
    models: Kind[ModelSpec] = field(default_factory=lambda: Kind("model", "loom_models", ModelSpec))
    suites: Kind[SuiteSpec] = field(default_factory=lambda: Kind("suite", "loom_suites", SuiteSpec))
    reports: Kind[ReportSpec] = field(default_factory=lambda: Kind("report", "loom_reports", ReportSpec))
    run_reports: Kind[RunReportSpec] = field(
        default_factory=lambda: Kind("run report", "loom_run_reports", RunReportSpec)
    )
    job_sources: Kind[JobSourceSpec] = field(
        default_factory=lambda: Kind("job source", "loom_job_sources", JobSourceSpec)
    )
    executors: Kind[ExecutorSpec] = field(default_factory=lambda: Kind("executor", "loom_executors", ExecutorSpec))
    broken: list[Broken] = field(default_factory=list)
    manager: pluggy.PluginManager = field(default_factory=lambda: new_manager())

    @property
    def kinds(self) -> tuple[Kind[Any], ...]:
        """All kinds, in the order `loom list` prints them."""
        return (
            self.benchmarks,
            self.servers,
            self.augmentations,
            self.metrics,
            self.models,
            self.suites,
            self.reports,
            self.run_reports,
            self.job_sources,
            self.executors,
        )

    def load(self, found: Found[Any]) -> Any:
        """Import the factory of a spec. Raises PluginError naming the distribution and the reason."""
        try:
            with guarded(found.spec.name):
                return resolve(found.spec.factory)
        except PluginError as error:
            raise PluginError(
                f"{found.spec.name!r} cannot be loaded",
                where=f"{found.distribution} {found.distribution_version}, {found.spec.factory}",
                why=described(error.__cause__ or error),
                hint=f"pip install --upgrade {found.distribution}, or uninstall it",
            ) from error

    def make(self, found: Found[Any], *arguments: Any) -> Any:
        """What a spec's factory makes of its options. Benchmarks and servers come guarded and checked (`hosted`).

        Raises PluginError where the plugin cannot be imported or its factory raises.
        """
        factory, name = self.load(found), found.spec.name
        with guarded(f"{self._noun(found)} {name}"):
            made = factory(*arguments)
        if isinstance(found.spec, BenchmarkSpec):
            return HostedBenchmark(made, name, found.spec.tasks)
        if isinstance(found.spec, (ModelSpec, SuiteSpec)) and not issubclass(type(made), (str, os.PathLike)):
            noun = self._noun(found)
            raise PluginError(f"{noun} {name} returned {shown(made)}, not a path", where=found.distribution)
        return HostedServer(made, name) if isinstance(found.spec, ServerSpec) else made

    def _noun(self, found: Found[Any]) -> str:
        return next((kind.noun for kind in self.kinds if isinstance(found.spec, kind.spec_type)), "plugin")

    def register(self, plugin: Any, name: str, distribution: str, version: str) -> None:
        """Register one plugin module or object and collect its specs; failures go to `broken`."""
        full_name = f"{distribution}:{name}"
        try:
            with guarded(f"plugin {name}"):
                if hasattr(plugin, "loom_commands"):  # found nowhere else, so that `loom --help` loads no plugin
                    raise PluginError(f"commands are registered in the entry-point group {COMMANDS_GROUP!r}")
                hash(plugin)
                if not any(self.manager.parse_hookimpl_opts(plugin, one) for one in dir(plugin)):
                    raise PluginError("it implements no hook of loom (loom_core.contract.hookspecs.hookimpl marks one)")
                self.manager.register(plugin, name=full_name)
                self.manager.check_pending()
        except LoomError as error:  # a plugin that breaks the hook contract must stop nobody
            if self.manager.get_plugin(full_name) is plugin:
                self.manager.unregister(plugin)
            self._break(name, distribution, error)
            return
        others = [p for p in self.manager.get_plugins() if p is not plugin]
        for kind in self.kinds:
            try:
                caller = self.manager.subset_hook_caller(kind.hook, remove_plugins=others)
                with guarded(f"plugin {name}", kind.hook):
                    specs = [spec for specs in caller() for spec in specs]
            except LoomError as error:  # as above
                self._break(name, distribution, error)
                continue
            for spec in specs:
                try:
                    with guarded(f"plugin {name}", kind.hook):
                        kind.add(Found(spec, distribution, version))
                except LoomError as error:  # the others stay
                    self._break(name, distribution, error)

    def _break(self, name: str, distribution: str, error: LoomError) -> None:
        cause = error.__cause__
        if isinstance(cause, pluggy.PluginValidationError):  # which hook, and only below it what is wrong with it
            why = "; ".join(line.strip() for line in str(cause).splitlines() if line.strip())
        else:
            why = error.what if cause is None else described(cause)
        self.broken.append(Broken(name, distribution, why))

    def first(self, hook: str, **arguments: Any) -> Any:
        """The first answer that a plugin gives to a hook which asks for one; None where none does.

        A `LoomError` passes as it is; whatever else a plugin raises becomes a PluginError that names it.
        """
        caller: pluggy.HookCaller = getattr(self.manager.hook, hook)
        for one in reversed(caller.get_hookimpls()):
            with guarded(f"plugin {one.plugin_name}", hook):
                answer = _answer(hook, one.function(**{name: arguments[name] for name in one.argnames}))
            if answer is not None:
                return answer
        return None

    def every(self, hook: str, **arguments: Any) -> list[Any]:
        """What every plugin answers to a hook; errors as for `first`."""
        caller: pluggy.HookCaller = getattr(self.manager.hook, hook)
        answers = []
        for one in reversed(caller.get_hookimpls()):
            with guarded(f"plugin {one.plugin_name}", hook):
                answers.append(_answer(hook, one.function(**{name: arguments[name] for name in one.argnames})))
        return answers

    def observe(self, hook: str, **arguments: Any) -> None:
        """Call an observing hook on each plugin; what one raises is printed and stops nobody."""
        caller: pluggy.HookCaller = getattr(self.manager.hook, hook)
        for one in caller.get_hookimpls():
            try:
                with guarded(f"plugin {one.plugin_name}", hook):
                    one.function(**{name: deepcopy(arguments[name]) for name in one.argnames})
            except LoomError as error:  # observers may not stop a run
                print(f"loom: {visible(error.what)}", file=sys.stderr)


def _answer(hook: str, given: Any) -> Any:
    """What a plugin answered to a hook. Raises PluginError where it is nothing of the kind that the hook asks for."""
    right: dict[str, Callable[[Any], bool]] = {
        "loom_resolve_benchmark": lambda one: one is None or (isinstance(one, Found) and not _fault(one.spec)),
        "loom_run_file": lambda one: one is None or all(hasattr(one, name) for name in ("systems", "check", "run")),
        "loom_forecast": lambda one: one is None or isinstance(one, Mapping),
        "loom_facts": lambda one: isinstance(one, Mapping) and all(isinstance(name, str) for name in one),
    }
    if hook in right and not right[hook](given):
        raise PluginError(f"{hook} returned {shown(given)}, which is not what the hook expects")
    return given


def new_manager() -> pluggy.PluginManager:
    """A plugin manager with loom's hooks; LOOM_TRACE_PLUGINS=1 prints every hook call."""
    manager = pluggy.PluginManager("loom")
    manager.add_hookspecs(hookspecs)
    if os.environ.get("LOOM_TRACE_PLUGINS"):
        manager.trace.root.setwriter(lambda text: print(text, end="", file=sys.stderr))
        manager.enable_tracing()
    return manager


def resolve(path: str) -> Any:
    """The object that "package.module:name" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def load_all(group: str = GROUP) -> Catalog:
    """A fresh catalog of every installed plugin; entry points are loaded one at a time."""
    catalog = Catalog()
    for point in sorted(importlib.metadata.entry_points(group=group), key=lambda p: (p.name, p.value)):
        distribution = point.dist.name if point.dist else "?"
        if other := another_api(point.dist):
            catalog.broken.append(Broken(point.name, distribution, other))
            continue
        try:
            with guarded(f"plugin {point.name}"):
                plugin = point.load()
        except LoomError as error:  # the reason is shown by `loom list`
            catalog._break(point.name, distribution, error)
            continue
        catalog.register(plugin, point.name, distribution, point.dist.version if point.dist else "?")
    return catalog


ASKED = re.compile(r"^Requires-Dist:\s*loom-core\b\s*\(?([^;)\n]*)", re.M)
LONGEST = 100
"""Characters of a metric's name or version."""
OURS = frozenset((">=0.1", ""))
"""Ranges that this version fits, so that nothing is imported to see it."""


def another_api(distribution: importlib.metadata.Distribution | None) -> str:
    """Why a distribution was written for another version of loom-core; "" where it was not, or does not say."""
    found = ASKED.search((distribution.read_text("METADATA") or "") if distribution else "")
    asked = found[1].strip() if found else ""
    if asked in OURS:
        return ""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        fits = SpecifierSet(asked).contains(__version__, prereleases=True)
    except InvalidSpecifier:
        return ""
    return "" if fits else f"it asks for loom-core{asked}, and this is {__version__}"


@functools.cache
def installed() -> Catalog:
    """The catalog of this process."""
    return load_all()
