"""Registers studies over several systems, the job source of anytime evaluation, and forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loom_core.contract.hookspecs import hookimpl
from loom_core.contract.records import Plan
from loom_core.contract.specs import JobSourceSpec
from loom_core.contract.types import Json

if TYPE_CHECKING:
    from loom_core.pipeline import RunFile


@hookimpl
def loom_job_sources() -> Sequence[JobSourceSpec]:
    """One rule."""
    return (
        JobSourceSpec(
            name="anytime",
            version="1",
            summary="in batches where intervals are widest, until the time is spent or every interval is narrow enough",
            factory="loom_lab.steering:Steering",
            serves=("budget", "until"),
        ),
    )


@hookimpl
def loom_run_file(path: Path, settings: Mapping[str, Json]) -> RunFile | None:
    """A study of several systems."""
    from loom_lab.study import read_study

    return read_study(path, settings)


@hookimpl
def loom_forecast(plan: Plan, runs: Path, workers: int) -> Mapping[str, Json]:
    """Tokens, time from earlier runs, cost and power."""
    from loom_lab.forecast import forecast

    return forecast(plan, runs, workers)
