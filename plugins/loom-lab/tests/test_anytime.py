"""Anytime evaluation on recorded runs: unbiased, never dearer than uniform sampling, resumed, and told.

The replays draw from a recorded full run in new random orders; what is asked is decided by `anytime`, what is estimated
by `weighting`, as in a run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from loom_report import cells
from loom_report.anytime import PILOT_UNITS, Asked, Standing, allot, elasticities, strata_of
from loom_report.statistics import stats
from loom_report.weighting import Part, Steered, combined, combined_difference, shift

from loom_core.run.store import read_json
from loom_core.run.writing import write_json

REPLAYS = 200
RATES = (0.97, 0.5, 0.8, 0.2, 0.99, 0.65)


def recorded(rates: Sequence[float], n: int = 400) -> list[Any]:
    """The 0/1 scores of a full run: one array a stratum."""
    return [np.array([1.0] * round(rate * n) + [0.0] * (n - round(rate * n))) for rate in rates]


def half_width(scores: Any) -> float:
    """Of a 0/1 stratum."""
    found = stats.wilson(float(scores.sum()), len(scores))
    return (found.high - found.low) / 2


def steered(orders: Sequence[Any], until: float | None, total: int = 0) -> list[int]:
    """Units taken of each stratum, one worker; with `total` questions of time where no width is wanted."""
    taken = [0] * len(orders)
    while True:
        standings = [
            Standing(len(order), k, half_width(order[:k]) if k else None)
            for order, k in zip(orders, taken, strict=True)
        ]
        added = allot(standings, until=until, least=1, most=math.inf if until else total - sum(taken))
        if not any(added):
            return taken
        taken = [a + b for a, b in zip(taken, added, strict=True)]


def uniform(orders: Sequence[Any], until: float) -> int:
    """Questions that one more of each stratum in turn needs, stopped at once when all intervals are narrow enough."""
    for k in range(PILOT_UNITS, max(map(len, orders)) + 1):
        if all(half_width(order[:k]) <= until or k >= len(order) for order in orders):
            return sum(min(k, len(order)) for order in orders)
    return sum(map(len, orders))


def estimate(scores: Any, part: Part) -> float:
    """A stratum's score as a report gives it."""
    rows = [(i, float(value)) for i, value in enumerate(scores)]
    return float(scores.mean()) + shift(rows, rows, part)


@pytest.mark.parametrize(("until", "total"), [(0.05, 0), (0.08, 0), (None, 600)])
def test_budgeted_estimates_are_unbiased(until: float | None, total: int) -> None:
    """The mean error of each stratum over the replays is within 3.5 standard errors of 0 (six strata, three ways)."""
    full, generator = recorded(RATES), np.random.default_rng(20)
    errors = []
    for _ in range(REPLAYS):
        orders = [generator.permutation(scores) for scores in full]
        taken = steered(orders, until, total)
        elastic = elasticities(taken, list(map(len, orders)), until)
        parts = [Part(None, k, len(o), e, 1.0) for k, o, e in zip(taken, orders, elastic, strict=True)]
        rows = zip(orders, taken, parts, full, strict=True)
        errors.append([estimate(order[:k], part) - scores.mean() for order, k, part, scores in rows])
    found = np.array(errors)
    noise = found.std(axis=0, ddof=1) / math.sqrt(REPLAYS)
    assert (np.abs(found.mean(axis=0)) <= 3.5 * noise).all(), found.mean(axis=0) / noise
    average = found.mean(axis=1)
    assert abs(average.mean()) <= 3.5 * average.std(ddof=1) / math.sqrt(REPLAYS)


def test_without_the_correction_the_same_replays_are_biased() -> None:
    """This would notice: easy strata look easier than they are when looking easy is why they were left."""
    full, generator = recorded(RATES[:1]), np.random.default_rng(20)
    errors = []
    for _ in range(4 * REPLAYS):
        order = generator.permutation(full[0])
        (k,) = steered([order], 0.05)
        errors.append(order[:k].mean() - full[0].mean())
    assert np.mean(errors) > 4 * np.std(errors) / math.sqrt(4 * REPLAYS)


@pytest.mark.parametrize("rates", [RATES, (0.9,) * 6, (0.5,) * 4, (0.99, 0.01, 0.5)])
def test_never_more_questions_than_uniform_sampling(rates: Sequence[float]) -> None:
    full, generator = recorded(rates), np.random.default_rng(3)
    for _ in range(50):
        orders = [generator.permutation(scores) for scores in full]
        assert sum(steered(orders, 0.06)) <= uniform(orders, 0.06)


def test_half_the_questions_where_variances_differ_strongly() -> None:
    full, generator = recorded((0.5, 0.99, 0.99, 0.01, 0.99, 0.01, 0.99, 0.99)), np.random.default_rng(4)
    for _ in range(50):
        orders = [generator.permutation(scores) for scores in full]
        assert sum(steered(orders, 0.06)) <= 0.5 * uniform(orders, 0.06)


def test_intervals_cover_where_the_drawing_ends_by_them() -> None:
    """Stopping at a width costs little coverage: of 1,000 runs 93 % and more, at rates from 0.2 to 0.8."""
    generator = np.random.default_rng(5)
    for rate in (0.2, 0.5, 0.8):
        hits = 0
        for _ in range(1000):
            order = (generator.random(4000) < rate).astype(float)
            (k,) = steered([order], 0.05)
            found = stats.wilson(float(order[:k].sum()), k)
            hits += found.low <= rate <= found.high
        assert hits >= 930, (rate, hits)


def test_units_hold_whole_documents_and_groups_in_a_seeded_order() -> None:
    asked = [Asked("t", f"q{i}", "1k", cluster=f"d{i // 3}", group="pair" if i in (0, 5) else None) for i in range(9)]
    asked += [Asked("t", f"r{i}", "2k") for i in range(4)]
    one, two = strata_of(asked, seed=1)
    assert (one.level, two.level) == ("1k", "2k")
    assert sorted(map(sorted, one.units)) == [["q0", "q1", "q2", "q3", "q4", "q5"], ["q6", "q7", "q8"]]
    assert strata_of(asked, seed=1) == [one, two]
    assert len({strata_of(asked, seed=seed)[1].units for seed in range(8)}) > 1
    across = [Asked("t", f"q{i}", "1k" if i % 2 else "2k", cluster="one" if i < 2 else None) for i in range(6)]
    (whole,) = strata_of(across, seed=0)
    assert whole.level is None and sum(map(len, whole.units)) == 6


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60), st.one_of(st.none(), st.floats(0.0, 0.5))), min_size=1),
    st.one_of(st.none(), st.floats(0.01, 0.3)),
    st.integers(1, 40),
    st.integers(0, 100),
)
def test_a_batch_never_asks_for_more_than_there_is(
    rows: list[tuple[int, int, float | None]], until: float | None, least: int, most: int
) -> None:
    standings = [Standing(n, min(k, n), width if k else None) for n, k, width in rows]
    added = allot(standings, until=until, least=least, most=most)
    assert all(0 <= a <= s.n_units - s.taken for a, s in zip(added, standings, strict=True))
    assert sum(added) <= most
    if all(s.taken >= min(PILOT_UNITS, s.n_units) for s in standings):
        done = [s.exhausted or s.half_width is None or (until is not None and s.half_width <= until) for s in standings]
        assert all(a == 0 for a, over in zip(added, done, strict=True) if over)
        assert any(added) == (most > 0 and not all(done))


def test_totals_weigh_levels_by_their_questions() -> None:
    rows = [{"score": 1.0, "low": 0.9, "high": 1.0}, {"score": 0.5, "low": 0.4, "high": 0.6}]
    found = combined([(0.25, rows[0]), (0.75, rows[1])], "score")
    assert found["value"] == 0.625
    assert found["high"] - found["value"] == pytest.approx(0.075)
    assert combined([(0.5, rows[0]), (0.5, {"score": None, "low": None, "high": None})], "score")["value"] is None
    record = {
        "until": 0.05,
        "strata": [
            {"task": "t", "level": "1k", "n_units": 100, "n_questions": 100},
            {"task": "t", "level": "2k", "n_units": 50, "n_questions": 300},
        ],
        "batches": [{"added": [20, 20]}, {"added": [30, 0]}],
    }
    subset = Steered(record)
    assert subset.weights("t") == {"1k": 0.25, "2k": 0.75}
    assert subset.part("t", "1k") == Part("1k", 50, 100, 1.0, 0.25)
    assert subset.weights("another") is None and subset.part("t", None) is None


@pytest.mark.parametrize("n", [5, 12, 40])
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_weighted_differences_agree_with_their_test(n: int, rate: float) -> None:
    """0 is outside the interval exactly where p is below 0.05, and equal arms raise few alarms."""
    generator, alarms = random.Random(n), 0
    metric = cells.Metric("em", "1", 0.0, 1.0, True, True, False, None)
    for seed in range(100):
        parts, pairs = [], []
        for level, weight in (("1k", 0.2), ("2k", 0.8)):
            rows = [(i, float(generator.random() < rate), float(generator.random() < rate)) for i in range(n)]
            parts.append((weight, cells.difference(metric, rows, level)))
            pairs += [(level, (level, i), mine - theirs) for i, mine, theirs in rows]
        found = combined_difference(parts, pairs, {"1k": 0.2, "2k": 0.8}, seed)
        assert (found["low"] <= 0 <= found["high"]) == (found["p"] >= 0.05)
        alarms += found["p"] < 0.05
    assert alarms <= 10
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert combined_difference([(1.0, nothing)], [("1k", i, 0.0) for i in range(4)], {"1k": 1.0}, 0)["p"] == 1.0


# --- whole runs ------------------------------------------------------------------------------------------------------

ASK = ("run", "passkey@words={32,64},depths=5,repeats=40", "--model", "toy", "--server-option", "batch=4")


def steering(loom: Any) -> dict[str, Any]:
    """The record in the manifest of the one run."""
    record: dict[str, Any] = read_json(loom.folder() / "manifest.json")["anytime"]
    return record


def test_a_run_until_a_width(loom: Any) -> None:
    done = loom(*ASK, "--until", "ci=6")
    record, n = steering(loom), len(loom.records())
    assert 32 <= n < 200
    assert record["stopped"] == "every interval is as narrow as was asked for"
    assert record["widest"]["half_width"] <= 0.06 and record["until"] == 0.06
    assert sum(sum(batch["added"]) for batch in record["batches"]) == n
    assert all(batch["seconds"] is not None for batch in record["batches"])
    assert "A stratified subset" in done.out and f"{n} of 400 planned answers" in done.out
    report = read_json(loom.folder() / "report.json")
    assert all(cell["scores"][0]["score"] == 1.0 for cell in report["cells"])
    assert "not made of a subset" in str(report["official"])
    again = loom("run", loom.folder())
    assert len(loom.records()) == n and "incomplete" not in again.out
    loom("run", loom.folder(), "--until", "none")
    assert len(loom.records()) == 400 and steering(loom)["given_up"]
    report = read_json(loom.folder() / "report.json")
    assert "A stratified subset" not in str(report["banners"]) and "error" not in str(report["official"])


def test_a_run_by_the_clock_ends_in_time_and_goes_on(loom: Any) -> None:
    slow = ("--server-option", "seconds=0.01")
    loom(*ASK, *slow, "--budget", "2s")
    record, n = steering(loom), len(loom.records())
    assert record["stopped"] == "the time is spent" and n < 400
    assert record["spent_seconds"] < 8
    assert loom("run", loom.folder()).code == 0 and len(loom.records()) == n
    loom("run", loom.folder(), "--budget", "1h")
    assert len(loom.records()) == 400
    assert steering(loom)["stopped"] == "every question was asked"


def test_a_killed_run_finishes_its_batch_and_decides_alike(loom: Any) -> None:
    """The same questions as an undisturbed run, whatever was recorded when it was killed, with other workers."""
    loom(*ASK, "--until", "ci=5", "--out", "whole")
    whole = {record["key"] for record in loom.records(loom.cwd / "whole")}
    broken = loom.cwd / "broken"
    child = loom.start(*ASK, "--server-option", "seconds=0.03", "--until", "ci=5", "--out", broken)
    while len(loom.records(broken)) < 20:
        assert child.poll() is None
    child.kill()
    child.communicate()
    loom("run", broken)
    assert {record["key"] for record in loom.records(broken)} == whole
    assert len(loom.records(broken)) == len(whole)


def test_where_nothing_gives_a_score_the_run_says_so(loom: Any) -> None:
    done = loom(*ASK, "--server-option", "errors=1.0", "--until", "ci=5", code=3)
    assert "gave no score to go by" in done.err and "incomplete" in done.out
    assert len(loom.records()) == 2 * PILOT_UNITS


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--budget", "soon"), "expected a time, got 'soon' (write 30m"),
        (("--budget", "0m"), "expected a time"),
        (("--until", "2"), "expected a width, got '2' (write ci=2"),
        (("--until", "ci=0"), "expected a width"),
        (("--until", "ci=60"), "expected a width"),
    ],
)
def test_values_that_cannot_be_meant(loom: Any, flags: tuple[str, str], says: str) -> None:
    assert says in loom(*ASK, *flags, code=2).err


def test_unequal_levels_are_weighed_in_the_report(loom: Any) -> None:
    """A task whose levels were asked to different extents: its total is the weighted mean of its cells."""
    loom(*ASK, "--until", "ci=8")
    folder = loom.folder()
    manifest = read_json(folder / "manifest.json")
    manifest["anytime"]["batches"].append({"added": [60, 0], "seconds": 0.0, "widest": None})
    write_json(folder / "manifest.json", manifest)
    loom("report", folder, "--html")
    report = read_json(folder / "report.json")
    scores = [cell["scores"][0]["score"] for cell in report["cells"]]
    assert report["totals"][0]["scores"][0]["score"] == pytest.approx(sum(scores) / 2)
    assert report["totals"][0]["scores"][0]["interval"] == "stratified"
