"""What every suite must fulfil: its file holds settings of a run, and names what is installed. Opens no benchmark.

Knows the settings of runs; knows no suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from loom_core.contract.specs import SuiteSpec
from loom_core.registry.names import parse_arms, parse_benchmark
from loom_core.registry.plugins import Catalog
from loom_core.run.config import from_toml
from loom_kit.rows import Row, attempt


def check_suite(spec: SuiteSpec, path: Callable[[], Path], catalog: Catalog) -> Iterator[Row]:
    """One row a rule. path: gives the suite's TOML file."""
    holds = attempt(spec.name, "its file holds settings of a run", partial(_holds, path))
    yield holds
    if holds.passed:
        yield attempt(spec.name, "its benchmarks and methods are installed", partial(_installed, path, catalog))


def _holds(path: Callable[[], Path]) -> None:
    config = from_toml(path())
    assert config.benchmarks, 'it selects nothing: write benchmarks = ["NAME"]'
    assert config.suite is None, f"it names another suite ({config.suite}): write out what that selects"


def _installed(path: Callable[[], Path], catalog: Catalog) -> None:
    config = from_toml(path())
    for text in config.benchmarks:
        parse_benchmark(text, catalog)
    parse_arms(config.accel, catalog)
