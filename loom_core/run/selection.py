"""Resolve a config against what is installed: benchmarks, model, server, arms, and what is refused.

Imports benchmark and server factories; loads no weights. Everything here is done again, equally, in each worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from loom_core.contract.errors import DataError, LoomError, RunError, UsageError, nearest
from loom_core.contract.guard import guarded
from loom_core.contract.keys import digest, plain
from loom_core.contract.options import build, identity
from loom_core.contract.protocols import Benchmark, Metric, ModelCard, Server
from loom_core.contract.records import ArmRow, PartRow
from loom_core.contract.specs import MetricSpec, ServerSpec
from loom_core.contract.tomlfile import read_toml
from loom_core.contract.types import Arm, Json, Sample, Task
from loom_core.prompting.ownprompt import OwnPrompt
from loom_core.prompting.thinking import declared
from loom_core.registry.names import Choice, parse_arms, parse_benchmark, refusal
from loom_core.registry.plugins import Catalog, Found
from loom_core.run.config import RunConfig, with_templates
from loom_core.run.judges import JudgeChoice, parse_judge

LOADING = frozenset(("local_model", "device"))
"""Capabilities of servers that read a model's folder themselves."""
DEFAULT_SUITE, DEFAULT_MODEL, DEFAULT_SERVER = "quickstart", "loom-tiny", "hf"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A benchmark opened with its options, and the tasks chosen."""

    choice: Choice
    benchmark: Benchmark
    tasks: tuple[Task, ...]
    templates: Mapping[str, OwnPrompt] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The benchmark's name."""
        return self.choice.found.spec.name

    def full_name(self, task: Task) -> str:
        """`benchmark:task`, the name used in tables and records; with a user's own prompt, a name of its own."""
        own = self.template(task)
        return f"{self.name}:{task.name}" + (own.label if own else "")

    def template(self, task: Task) -> OwnPrompt | None:
        """The user's own prompt for a task."""
        return self.templates.get(task.name)

    def prompted(self, task: Task, samples: Iterator[Sample]) -> Iterator[Sample]:
        """The samples of a task with the prompt they are asked with."""
        own = self.template(task)
        return own.applied(samples) if own else samples


@dataclass(frozen=True, slots=True)
class Selection:
    """A config with every name resolved. refused: arms that this server cannot do, which do not run."""

    config: RunConfig
    catalog: Catalog
    chosen: tuple[Chosen, ...]
    server: Found[ServerSpec]
    server_options: Any
    model_options: Any
    model: str
    arms: tuple[Arm, ...]
    judge: JudgeChoice | None = None
    refused: Mapping[str, LoomError] = field(default_factory=dict)

    @property
    def model_name(self) -> str:
        """The model's short name: as it was asked for, without its folder."""
        return Path(self.config.model or DEFAULT_MODEL).name

    def open_server(self) -> Server:
        """The server, built with its options."""
        server: Server = self.catalog.make(self.server, self.server_options)
        return server

    def describe(self) -> ModelCard:
        """The model's card: digests, window, tokenizer; no weights."""
        return self.open_server().describe(self.model, self.model_options)

    def model_identity(self, card: ModelCard) -> dict[str, Json]:
        """What of the model and server enters a job's key."""
        tokenizer = card.tokenizer
        return {
            "digest": card.digest,
            "tokenizer": tokenizer.digest if tokenizer else None,
            "template": tokenizer.template_digest if tokenizer else None,
            "server": [self.server.spec.name, self.server.spec.version],
            "model_options": identity(self.model_options),
            "server_options": identity(self.server_options),
        }

    @property
    def digest(self) -> str:
        """sha256 of what the run asks: equal digests may share a run folder."""
        return digest([self.config.identity, identity(self.server_options)])

    def tasks(self) -> Iterator[tuple[Chosen, Task, str]]:
        """Every chosen task with its benchmark and full name."""
        for chosen in self.chosen:
            for task in chosen.tasks:
                yield chosen, task, chosen.full_name(task)

    def task(self, full_name: str) -> tuple[Chosen, Task]:
        """The task of that full name."""
        for chosen, task, name in self.tasks():
            if name == full_name:
                return chosen, task
        raise RunError(f"this run has no task {full_name[:80]!r}, of which it has jobs", hint="its files were altered")

    def metric_specs(self, task: Task) -> tuple[Found[MetricSpec], ...]:
        """The metrics of a task, the primary one first."""
        return tuple(self.catalog.metrics.get(name) for name in task.metrics)

    def metrics(self, task: Task) -> Mapping[str, Metric]:
        """The metrics of a task, opened."""
        return {found.spec.name: self._metric(found) for found in self.metric_specs(task)}

    def _metric(self, found: Found[MetricSpec]) -> Metric:
        given = metric_options(self.config, found)
        options = build(found.spec.options, given, owner=f"metric {found.spec.name}")
        metric: Metric = self.catalog.make(found, *([options] if given else []))
        return metric


def select(config: RunConfig, catalog: Catalog) -> Selection:
    """Resolve every name of a config. Raises UsageError for what is unknown, out of range or refused."""
    config = _with_suite(config, catalog)
    if config.offline:
        # The libraries of servers ask the environment; workers come through here too.
        os.environ["LOOM_OFFLINE"] = "1"
    model, server_name = _model(config, catalog)
    server = catalog.servers.get(server_name)
    if config.protocol == "context-only" and "context_only" not in server.spec.capabilities:
        able = [found.spec.name for found in catalog.servers if "context_only" in found.spec.capabilities]
        raise UsageError(
            f"server {server_name} cannot compress the context before it sees the question",
            where="protocol context-only",
            hint="servers that can: " + (", ".join(able) or "none is installed") + "; or use protocol query-aware",
        )
    arms = parse_arms(config.accel, catalog)
    problems = {arm.name: refusal(arm, server.spec.capabilities, server_name, catalog) for arm in arms}
    refused: dict[str, LoomError] = {name: problem for name, problem in problems.items() if problem is not None}
    _refuse_all(refused, arms)
    chosen = opened(config, catalog)
    _refuse_unknown_metrics(config, catalog)
    server_options = build(server.spec.options, config.server_options, owner=f"server {server_name}")
    if stacked := [arm for arm in arms if len(arm.of_kind("model")) > 1 and arm.name not in refused]:
        refused |= _refused_stacks(stacked, catalog.make(server, server_options))
        _refuse_all(refused, arms)
    return Selection(
        config=config,
        catalog=catalog,
        chosen=chosen,
        server=server,
        server_options=server_options,
        model_options=build(server.spec.model_options, config.model_options, owner=f"model on server {server_name}"),
        model=model,
        arms=tuple(arm for arm in arms if arm.name not in refused),
        refused=refused,
        judge=parse_judge(config.judge, config.judge_options, catalog),
    )


def opened(config: RunConfig, catalog: Catalog) -> tuple[Chosen, ...]:
    """The benchmarks that a config names, with their tasks; needs no model and no server."""
    choices = [_choice(text, config, catalog) for text in config.benchmarks]
    chosen = tuple(_open(choice, config, catalog) for choice in choices)
    _refuse_twice(chosen)
    _refuse_idle_templates(config, chosen)
    return chosen


def described(config: RunConfig, catalog: Catalog) -> ModelCard:
    """The card of a config's model on its server: tokenizer and window, no weights."""
    model, name = _model(config, catalog)
    found = catalog.servers.get(name)
    server: Server = catalog.make(found, build(found.spec.options, config.server_options, owner=f"server {name}"))
    return server.describe(
        model, build(found.spec.model_options, config.model_options, owner=f"model on server {name}")
    )


def _refused_stacks(arms: Sequence[Arm], server: Any) -> dict[str, LoomError]:
    """What a server that has rules for it (`check_arm`) says against arms with several methods for the model itself."""
    refused: dict[str, LoomError] = {}
    if (check := getattr(server, "check_arm", None)) is not None:
        for arm in arms:
            try:
                with guarded("check_arm()"):
                    check(arm)
            except LoomError as error:
                refused[arm.name] = error
    return refused


def _refuse_all(refused: Mapping[str, LoomError], arms: Sequence[Arm]) -> None:
    """Raise the first refusal where none of the arms that were asked for beside the baseline is left."""
    if refused and not any(arm.parts and arm.name not in refused for arm in arms):
        raise next(iter(refused.values()))


def metric_options(config: RunConfig, found: Found[MetricSpec]) -> dict[str, str]:
    """What the config gives to a metric: under its own name, or under its package's (`nli` of loom-metric-nli)."""
    known = {f.name for f in fields(found.spec.options)}
    given: dict[str, str] = {}
    for owner in (_package(found), found.spec.name):
        for name, value in config.metric_options.items():
            whose, _, option = name.rpartition(".")
            # An option for the package goes to those of its metrics that have it.
            if whose == owner and (option in known or owner == found.spec.name):
                given[option] = value
    return given


def _package(found: Found[MetricSpec]) -> str:
    return found.distribution.removeprefix("loom-metric-").removeprefix("loom-bench-")


def _refuse_unknown_metrics(config: RunConfig, catalog: Catalog) -> None:
    """Every metric option is for a metric that is installed and has it."""
    owners: dict[str, set[str]] = {}
    for found in catalog.metrics:
        for owner in (found.spec.name, _package(found)):
            owners.setdefault(owner, set()).update(f.name for f in fields(found.spec.options))
    for name in config.metric_options:
        owner, _, option = name.rpartition(".")
        if owner not in owners:
            known = [o for o, options in owners.items() if options]
            raise UsageError(
                f"no metric {owner!r} has options", where=f"--metric-option {name}", hint=nearest(owner, known)
            )
        if option not in owners[owner]:
            hint = nearest(option, owners[owner]) if owners[owner] else f"{owner} takes no options"
            raise UsageError(f"unknown option {option!r}", where=f"--metric-option {name}", hint=hint)
    for found in catalog.metrics:  # those of metrics that this run does not use are typed, too
        if given := metric_options(config, found):
            build(found.spec.options, given, owner=f"metric {found.spec.name}")


def _choice(text: str, config: RunConfig, catalog: Catalog) -> Choice:
    """A benchmark by name; what is wrong with one that the user did not type says where it is."""
    try:
        return parse_benchmark(text, catalog)
    except UsageError as error:
        origin = config.origins.get("benchmarks", "")
        if origin not in ("", "command line"):
            error.where = f"{error.where or text}, in {origin}"
        raise


def _refuse_twice(chosen: tuple[Chosen, ...]) -> None:
    """A task stands once in a run: its answers under two sets of options would fall into one column."""
    seen: dict[str, str] = {}
    for one in chosen:
        for name in map(one.full_name, one.tasks):
            if name in seen:
                raise UsageError(
                    f"task {name} is asked for twice",
                    where=f"{seen[name]} and {one.choice.text}",
                    hint=f"run them apart, or give several values at once ({one.name}@option={{a,b}})",
                )
            seen[name] = one.choice.text


def _open(choice: Choice, config: RunConfig, catalog: Catalog) -> Chosen:
    name = choice.found.spec.name
    benchmark: Benchmark = catalog.make(choice.found, _seeded(choice.options, config.seed))
    tasks = [t for t in benchmark.tasks(config.lengths) if not choice.tasks or t.name in choice.tasks]
    if not tasks:
        offered = ", ".join(t.name for t in benchmark.tasks(config.lengths))
        raise UsageError(
            f"no task of {name} is left",
            where=choice.text,
            why=f"these options give: {offered}",
            hint=_giving(choice, catalog, config.lengths) or "drop the task",
        )
    if thinking := declared(config.thinking, config.thinking_budget):
        tasks = [replace(t, generation=thinking.limits(t.generation)) for t in tasks]
    repeated = [replace(t, generation=replace(t.generation, repeats=config.repeats)) for t in tasks]
    own = {
        text.partition(":")[2]: OwnPrompt(template, f"template for {text}")
        for text, template in config.templates.items()
        if text.partition(":")[0] == name
    }
    return Chosen(choice, benchmark, tuple(repeated) if config.repeats > 1 else tuple(tasks), own)


def _refuse_idle_templates(config: RunConfig, chosen: tuple[Chosen, ...]) -> None:
    """Every template is for a task that runs."""
    known = [f"{one.name}:{task.name}" for one in chosen for task in one.tasks]
    for name in config.templates:
        if name not in known:
            raise UsageError(
                f"a template is for {name!r}, which does not run", where="--template", hint=nearest(name, known)
            )


def _giving(choice: Choice, catalog: Catalog, lengths: tuple[int, ...]) -> str:
    """Which option, of those that take one of a few words, gives the tasks asked for; "" where none does."""
    hints = get_type_hints(type(choice.options))
    for option, value in ((f.name, value) for f in fields(choice.options) for value in get_args(hints[f.name])):
        if not isinstance(value, str):
            continue
        try:
            tried = catalog.make(choice.found, replace(choice.options, **{option: value}))
            given = {task.name for task in tried.tasks(lengths)}
        except (ValueError, LoomError):
            continue
        if set(choice.tasks) <= given:
            return f"{choice.found.spec.name}@{option}={value}:{','.join(choice.tasks)} gives what was asked for"
    return ""


def _seeded(options: Any, seed: int) -> Any:
    """The run's `--seed` becomes the benchmark's, where it has one and none was given."""
    if seed and getattr(options, "seed", "none") in (0, None):
        return replace(options, seed=seed)
    return options


def _model(config: RunConfig, catalog: Catalog) -> tuple[str, str]:
    """The model's path or id, and the server's name. A server that loads no model gets an installed one's name as is:
    its endpoint has names of its own."""
    name = config.model or DEFAULT_MODEL
    if name in catalog.models:
        found = catalog.models.get(name)
        server = config.server or found.spec.server
        loads = server == found.spec.server or LOADING & catalog.servers.get(server).spec.capabilities
        return str(catalog.make(found)) if loads else name, server
    if config.model is None:
        catalog.models.get(name)
    return name, config.server or DEFAULT_SERVER


def _with_suite(config: RunConfig, catalog: Catalog) -> RunConfig:
    """The config with the settings of its suite, which the user's own settings override."""
    name = config.suite or (None if config.benchmarks else DEFAULT_SUITE)
    if name is None:
        return config
    if name == DEFAULT_SUITE and name not in catalog.suites:
        raise UsageError("no benchmark was named", hint="loom run BENCHMARK --model MODEL (loom list benchmarks)")
    path = Path(catalog.make(catalog.suites.get(name)))
    try:
        values = read_toml(path)
    except (OSError, ValueError) as error:
        raise DataError(f"suite {name} cannot be read", where=str(path), why=str(error)) from error
    values = {k: v for k, v in with_templates(values, path).items() if not config.origins.get(k)}
    return config.merged(values, f"suite {name}")


def plan_arm(arm: Arm, catalog: Catalog, protocol: str = "query-aware") -> ArmRow:
    """An arm as plan.json shows it: each part with what its method declares. Context-only, no question steers it."""
    rows: list[PartRow] = []
    for part in arm.parts:
        spec = catalog.augmentations.get(part.name).spec
        aware = spec.query_aware and (protocol == "query-aware" or spec.kind != "model")
        rows.append(
            {
                "name": part.name,
                "version": part.version,
                "kind": part.kind,
                "options": plain(part.options),
                "text": part.text,
                "extends_context": spec.extends_context,
                "retrieval": spec.retrieval,
                "saves": spec.saves,
                "query_aware": aware,
                "phase": spec.phase,
            }
        )
    return {"name": arm.name, "parts": rows}
