"""The hooks of loom, all of them. A plugin is a module named by an entry point of the group `loom`.

The registering module imports only `loom_core`; specs name their factories as strings, imported on use. Hooks that
observe may change nothing: what they raise is reported and stops nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from loom_core.contract.records import Manifest, Plan
from loom_core.contract.specs import (
    AugmentationSpec,
    BenchmarkSpec,
    CommandSpec,
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
from loom_core.contract.types import Json

if TYPE_CHECKING:
    import click

    from loom_core.contract.protocols import Graded
    from loom_core.pipeline import RunFile
    from loom_core.registry.plugins import Catalog, Found
    from loom_core.run.selection import Selection
    from loom_core.run.store import RunFolder

hookspec = pluggy.HookspecMarker("loom")
hookimpl = pluggy.HookimplMarker("loom")


@hookspec
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """Benchmarks: suites of tasks with samples and official scorers."""
    return ()


@hookspec
def loom_servers() -> Sequence[ServerSpec]:
    """Servers: ways to run a model."""
    return ()


@hookspec
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """Augmentations: KV-cache methods, prompt rewriting, strategies of several calls."""
    return ()


@hookspec
def loom_metrics() -> Sequence[MetricSpec]:
    """Metrics that benchmarks name in their tasks."""
    return ()


@hookspec
def loom_models() -> Sequence[ModelSpec]:
    """Models installed as packages, usable by name."""
    return ()


@hookspec
def loom_suites() -> Sequence[SuiteSpec]:
    """Suites: TOML files that name tasks, lengths and seeded subsets."""
    return ()


@hookspec
def loom_reports() -> Sequence[ReportSpec]:
    """Further report formats, made from report.json."""
    return ()


@hookspec
def loom_run_reports() -> Sequence[RunReportSpec]:
    """What is written after every run and shown for it: one besides core's plain table of means."""
    return ()


@hookspec
def loom_job_sources() -> Sequence[JobSourceSpec]:
    """Rules by which a run's jobs are asked; without one, all of them at once."""
    return ()


@hookspec
def loom_executors() -> Sequence[ExecutorSpec]:
    """Where jobs are answered: in worker processes, in this process, on other machines."""
    return ()


@hookspec
def loom_commands(cli: click.Group) -> Sequence[CommandSpec] | None:
    """Commands of `loom`. Looked for in the entry-point group `loom.commands`, loaded only by the command line.

    An implementation takes no argument. cli: an empty group, for plugins of before that add their commands to it; it
    goes in loom-core 1.2.
    """


@hookspec(firstresult=True)
def loom_resolve_benchmark(name: str, catalog: Catalog) -> Found[BenchmarkSpec] | None:
    """The benchmark that a name which nobody registered means (a file, a task of another program); None: not mine."""


@hookspec(firstresult=True)
def loom_run_file(path: Path, settings: Mapping[str, Json]) -> RunFile | None:
    """What a TOML file asks `loom run` for where it is more than the settings of one run; None: it is not."""


@hookspec(firstresult=True)
def loom_forecast(plan: Plan, runs: Path, workers: int) -> Mapping[str, Json] | None:
    """What running a plan takes and what it can find. runs: the folder of earlier runs."""


@hookspec
def loom_graded(folder: RunFolder, selection: Selection, graded: Mapping[tuple[str, str], Sequence[Graded]]) -> None:
    """A run was scored: its graded rows by benchmark and arm, with references. What raises here ends the command."""


@hookspec
def loom_facts(spec: Spec) -> Mapping[str, Json]:
    """Facts by name that `loom list` and `loom info` show beside what a spec says of itself: short texts, and records
    for `--format json` alone."""
    return {}


@hookspec
def loom_run_started(folder: Path, manifest: Manifest) -> None:
    """A run begins or continues in `folder`."""


@hookspec
def loom_response(record: Mapping[str, Json]) -> None:
    """A response was appended to the store."""


@hookspec
def loom_run_ended(folder: Path, summary: Mapping[str, Json]) -> None:
    """Generation ended: the counts of planned, done and failed jobs."""
