"""Coverage of intervals: `perf/coverage.py` simulates it, `perf/coverage.json` keeps what it printed, and
docs/statistics.md tells the ends. Every case covers at least 93 %; more than 97 % where few answers leave no choice.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from loom_report.statistics import strata

pytest.importorskip("scipy", reason="the test extra has scipy")
ROOT = Path(__file__).resolve().parents[3]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_of_intervals", ROOT / "perf" / "coverage.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


coverage = _script()
KEPT = json.loads((ROOT / "perf" / "coverage.json").read_text("utf-8"))
FOUND: dict[str, dict[str, float]] = KEPT["coverage"]


def _rows(table: np.ndarray) -> list[strata.Weighed]:
    found: list[strata.Weighed] = coverage.rows(table[..., None])
    return found


def test_every_interval_covers_93_percent_of_2000_draws() -> None:
    assert KEPT["draws"] == 2000
    assert set(FOUND) == set(coverage.FAMILIES)
    assert {name: min(cases.values()) for name, cases in FOUND.items() if min(cases.values()) < 0.93} == {}


@pytest.mark.parametrize("name", ["strata", "graded strata", "paired strata"])
def test_intervals_of_many_answers_are_no_wider_than_they_must_be(name: str) -> None:
    """Where 13 or 20 strata of 20 hold answers of both kinds, coverage is near 95 %."""
    many = [
        value
        for case, value in FOUND[name].items()
        if re.search(r"(13|20) strata of 20, (equal 0.[57]|loss 0.5)", case)
    ]
    assert many and max(many) <= 0.97


@pytest.mark.parametrize("name", ["single", "strata", "graded strata", "strata of documents"])
def test_the_kept_figures_are_those_of_this_code(name: str) -> None:
    assert dict(coverage.FAMILIES[name](KEPT["draws"])) == pytest.approx(FOUND[name], abs=2e-3)


def test_the_kept_figures_of_differences_are_those_of_this_code() -> None:
    found = dict(coverage.paired_strata(KEPT["draws"], ("0/1",)))
    assert found == pytest.approx({case: FOUND["paired strata"][case] for case in found}, abs=2e-3)


@pytest.mark.parametrize("name", sorted(coverage.FAMILIES))
def test_docs_tell_the_kept_figures(name: str) -> None:
    told = (ROOT / "docs" / "statistics.md").read_text("utf-8")
    low, high = 100 * min(FOUND[name].values()), 100 * max(FOUND[name].values())
    assert f"{low:.1f} to {high:.1f} % ({name})" in told


@pytest.mark.parametrize("n", [2, 5, 20])
@pytest.mark.parametrize(("loss", "gain"), [(0.0, 0.0), (0.05, 0.05), (0.3, 0.1)])
def test_differences_over_strata_never_contradict_their_test(n: int, loss: float, gain: float) -> None:
    generator = np.random.default_rng(n)
    alarms = 0
    for seed in range(200):
        u = generator.random((5, n))
        rows = _rows(np.where(u < loss, -1.0, np.where(u < loss + gain, 1.0, 0.0)))
        compared = strata.difference_interval(strata.moments(rows, worst=-1.0))
        interval, tested = strata.agreed(compared, strata.weighted_flips(rows, seed))
        alarms += tested.p < 0.05
        assert (interval.low <= 0 <= interval.high) == (tested.p >= 0.05 - 1e-12)
    if loss == gain:
        assert alarms / 200 <= 0.05


def test_two_right_answers_in_each_of_13_tasks_are_26_right_answers() -> None:
    interval = strata.mean_interval(strata.moments(_rows(np.ones((13, 2)))))
    assert (interval.low, interval.high) == pytest.approx(strata.stats.proportion(26, 26)[:2])
    table = np.ones((13, 2))
    table[:7, 0] = 0.0
    assert strata.mean_interval(strata.moments(_rows(table))).high < 0.95


def test_the_readmes_table_has_the_intervals_of_its_own_scores() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    n = int(re.search(r"n = (\d+) scored answers an arm", readme)[1])  # type: ignore[index]
    told = re.findall(r"(\d\.\d{3})   \[(\d\.\d{3}), (\d\.\d{3})\]", readme)
    assert len(told) == 4
    for score, *ends in told:
        found = strata.stats.proportion(float(round(float(score) * n)), float(n))
        assert ends == [f"{found.low:.3f}", f"{found.high:.3f}"]
