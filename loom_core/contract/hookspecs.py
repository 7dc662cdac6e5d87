"""The hooks of loom, all of them. A plugin is a module named by an entry point of the group `loom`.

The registering module imports only `loom_core`; specs name their factories as strings, imported on use. Hooks that
observe may change nothing: what they raise is reported and stops nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from loom_core.contract.specs import (
    AugmentationSpec,
    BenchmarkSpec,
    MetricSpec,
    ModelSpec,
    ReportSpec,
    ServerSpec,
    SuiteSpec,
)
from loom_core.contract.types import Json

if TYPE_CHECKING:
    import click

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
def loom_commands(cli: click.Group) -> None:
    """Add commands to `loom`. Looked for in the entry-point group `loom.commands`, loaded only by the command line."""


@hookspec
def loom_run_started(folder: Path, manifest: Mapping[str, Json]) -> None:
    """A run begins or continues in `folder`."""


@hookspec
def loom_response(record: Mapping[str, Json]) -> None:
    """A response was appended to the store."""


@hookspec
def loom_run_ended(folder: Path, summary: Mapping[str, Json]) -> None:
    """Generation ended: the counts of planned, done and failed jobs."""
