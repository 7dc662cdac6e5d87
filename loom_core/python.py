"""loom from Python: the same runs and plans as on the command line, with the same names for settings.

from loom_core.api import open_run, plan, run

done = run("passkey", model="loom-tiny", accel=["snapkv:budget=256"], limit=8)
done.frame().groupby("arm").passkey_exact.mean()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loom_core.contract.records import Plan
from loom_core.contract.types import Json
from loom_core.pipeline import open_data, run as run_config
from loom_core.registry.plugins import installed
from loom_core.run.config import RunConfig
from loom_core.run.opened import Run
from loom_core.run.plan import make_plan
from loom_core.run.runner import Progress
from loom_core.run.selection import select


class Silent:
    """Watches a run and says nothing; keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begin(self, total: int, done: int) -> None:
        """Nothing to show."""

    def response(self, record: Mapping[str, Json]) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)

    def end(self) -> None:
        """Nothing to show."""


def run(benchmarks: str | Iterable[str] = (), *, progress: Progress | None = None, **settings: Any) -> Run:
    """Run benchmarks, or continue the run that these settings name, and give its folder. settings: those of
    `loom run` by their long names (`model`, `server`, `server_options`, `accel`, `lengths`, `limit`, `out`, …). What
    could not be answered is told in the run's states, as on the command line.

    Raises UsageError for what cannot be meant, ModelError, DataError, PluginError or RunError for what does not work.
    """
    config = _config(benchmarks, settings)
    result = run_config(config, installed(), ["python"], progress or Silent())
    return Run(result.folder)


def plan(benchmarks: str | Iterable[str] = (), **settings: Any) -> Plan:
    """What `run` with the same arguments would ask: the record of plan.json. Loads no weights, writes nothing."""
    selection = select(_config(benchmarks, settings), installed())
    return make_plan(selection, selection.describe(), open_data(selection.config), None)


def _config(benchmarks: str | Iterable[str], settings: Mapping[str, Any]) -> RunConfig:
    names = [benchmarks] if isinstance(benchmarks, str) else list(benchmarks)
    given = {**({"benchmarks": names} if names else {}), **settings}
    return RunConfig().merged(given, "Python")
