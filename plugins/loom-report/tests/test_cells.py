"""From run folders to cells: denominators that add up, differences by pairs, times under one condition, flags."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from loom_kit.runs import DENSE, Answerer, Made, MadeArm, MadeTask, make_run, retrieves
from loom_report import cells, ledger, length_depth as views
from loom_report.statistics import stats

from loom_core.api import Json, Sample
from loom_core.run.store import RunFolder, read_json

SNAP = MadeArm("snapkv:budget=4x", 0.25, query_aware=True)
SMALL = MadeTask(levels={"1k": 64, "2k": 128}, depths=(0.0, 1.0), repeats=4)


def read(folder: RunFolder) -> ledger.Ledger:
    return ledger.read(folder, read_json(folder.plan))


def built(folder: RunFolder) -> tuple[list[dict[str, Json]], list[dict[str, Json]]]:
    return cells.build(read(folder))


def cell(rows: list[dict[str, Json]], arm: str, level: str | None = None) -> dict[str, Json]:
    return next(row for row in rows if row["arm"] == arm and row["level"] == level)


def test_a_cell_by_hand(tmp_path: Path) -> None:
    """24 questions; the method loses the six at depth 1 of the longer level, nothing else."""

    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        right = arm.name == "dense" or not (sample.level == "2k" and sample.depth == 1.0)
        return Made(text="1", values={"exact_match": float(right)})

    task = MadeTask(levels={"1k": 64, "2k": 128}, depths=(0.0, 1.0), repeats=6)
    rows, totals = built(make_run(tmp_path / "run", answer, tasks=[task], arms=[DENSE, SNAP]))
    assert [(r["level"], r["arm"]) for r in rows] == [
        ("1k", "dense"),
        ("1k", SNAP.name),
        ("2k", "dense"),
        ("2k", SNAP.name),
    ]
    score = cell(rows, SNAP.name, "2k")["scores"][0]
    assert (score["score"], score["n"]) == (0.5, 12)
    assert (score["low"], score["high"]) == stats.proportion(6, 12)[:2]
    delta = score["delta"]
    assert (delta["value"], delta["n_pairs"], delta["n_worse"], delta["n_better"]) == (-0.5, 12, 6, 0)
    assert delta["p"] == stats.mcnemar_exact(0, 6) == 0.03125
    assert delta["test"] == "mcnemar, exact"
    assert delta["p_holm"] == 0.0625
    assert delta["family"] == 2
    assert not delta["significant"]
    total = cell(totals, SNAP.name)["scores"][0]
    assert (total["score"], total["delta"]["p_holm"], total["delta"]["significant"]) == (0.75, 0.03125, True)
    assert cell(rows, "dense", "1k")["scores"][0]["delta"] is None


def test_costs_of_a_cell(tmp_path: Path) -> None:
    rows, _ = built(make_run(tmp_path / "run", retrieves({}), tasks=[SMALL], arms=[DENSE, SNAP]))
    dense, snap = cell(rows, "dense", "2k")["cost"], cell(rows, SNAP.name, "2k")["cost"]
    assert dense["kv"]["kept"] == 1.0
    assert snap["kv"]["kept"] == 0.25
    assert snap["kv"]["held_share"] == pytest.approx(0.25, abs=0.001)
    assert snap["kv"]["saves"] == ["real"]
    assert snap["peak_bytes"] < dense["peak_bytes"]
    assert snap["seconds_to_first_token"] > dense["seconds_to_first_token"] > 0
    assert 0 < snap["seconds_per_token"] < 1
    assert (snap["batch"], snap["forked"], snap["comparable"], snap["n_timed"]) == (1, False, True, 8)


def test_times_of_other_conditions_never_mix(tmp_path: Path) -> None:
    """Half of the method's answers ran in batches of 4 and one was forked: only single ones are compared."""

    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        number = int(sample.id.rpartition("-")[2])
        batch = 4 if arm.name != "dense" and number % 2 else 1
        forked = arm.name != "dense" and sample.id.endswith("-0-0")
        return Made(text="12345678 12345678", values={"exact_match": 1.0}, batch=batch, forked=forked)

    task = MadeTask(levels={"1k": 64}, depths=(0,), repeats=8)
    rows, _ = built(make_run(tmp_path / "run", answer, tasks=[task], arms=[DENSE, SNAP]))
    cost = cell(rows, SNAP.name, "1k")["cost"]
    assert (cost["batch"], cost["forked"], cost["n_timed"], cost["comparable"]) == (1, False, 3, True)
    assert sorted((c["batch"], c["forked"], c["n"]) for c in cost["conditions"]) == [
        (1, False, 3),
        (1, True, 1),
        (4, False, 4),
    ]


def test_without_a_common_condition_times_are_marked(tmp_path: Path) -> None:
    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        return Made(text="x", values={"exact_match": 1.0}, batch=1 if arm.name == "dense" else 8)

    rows, _ = built(make_run(tmp_path / "run", answer, tasks=[SMALL], arms=[DENSE, SNAP]))
    costs = [row["cost"] for row in rows]
    assert [cost["batch"] for cost in costs] == [1, 8, 1, 8]
    assert not any(cost["comparable"] for cost in costs)


def breaks(chances: dict[str, float]) -> Answerer:
    def answer(sample: Sample, arm: MadeArm, repeat: int, generator: random.Random) -> Made | None:
        what = generator.choices(list(chances), list(chances.values()))[0]
        if what == "missing":
            return None
        if what == "error":
            return Made(error="out of memory")
        values = {} if what == "unscored" else {"exact_match": float(generator.random() < 0.5)}
        return Made(text="x", values=values, n_dropped=7 * (what == "truncated"))

    return answer


@given(st.tuples(*[st.integers(0, 3)] * 5), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_every_planned_answer_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, odds: tuple[int, ...], seed: int
) -> None:
    names = ("scored", "unscored", "error", "missing", "truncated")
    chances = dict(zip(names, (odd + 0.01 for odd in odds), strict=True))
    task = MadeTask(levels={"1k": 16, "2k": 32}, depths=(0,), repeats=9, answers=2)
    folder = make_run(tmp_path_factory.mktemp("run"), breaks(chances), tasks=[task], arms=[DENSE, SNAP], seed=seed)
    rows, totals = built(folder)
    for row in rows + totals:
        score = row["scores"][0]
        assert score["n"] + score["n_unscored"] + row["n_error"] + row["n_missing"] == row["n_planned"]
        assert row["n_planned"] == (36 if row["level"] is None else 18)
        assert (score["score"] is None) == (score["n"] == 0)
        assert row["tokens_dropped"] == 7 * row["n_truncated"]
        if score["score"] is not None:
            assert score["low"] <= score["score"] <= score["high"]
    assert sum(row["n_error"] for row in rows) == sum(row["n_error"] for row in totals)


def test_an_error_that_was_answered_later_is_no_error(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", breaks({"error": 1.0}), tasks=[SMALL], arms=[DENSE])
    assert built(folder)[1][0]["n_error"] == 16
    again = make_run(tmp_path / "again", retrieves({}), tasks=[SMALL], arms=[DENSE])
    with folder.responses.open("a") as file:
        file.write(again.responses.read_text())
        file.write(folder.responses.read_text().splitlines()[0] + "\n")
    total = built(folder)[1][0]
    assert (total["n_error"], total["n_answered"]) == (0, 16)


def test_graded_scores_and_documents(tmp_path: Path) -> None:
    """Scores of 0 to 100, three questions a document: bootstrapped difference, sign flips of whole documents."""

    def answer(sample: Sample, arm: MadeArm, repeat: int, generator: random.Random) -> Made:
        value = 60 + 30 * generator.random() - (20 if arm.name != "dense" else 0)
        return Made(text="x", values={"f1": value})

    task = MadeTask(
        levels={"1k": 16}, depths=(0,), repeats=30, per_document=3, metrics={"f1": (0.0, 100.0)}, chance=None
    )
    rows, _ = built(make_run(tmp_path / "run", answer, tasks=[task], arms=[DENSE, SNAP]))
    score = cell(rows, SNAP.name, "1k")["scores"][0]
    assert (score["n"], score["n_clusters"], score["interval"]) == (30, 10, "wilson, graded")
    delta = score["delta"]
    assert delta["value"] == pytest.approx(-20, abs=8)
    assert delta["low"] <= delta["value"] <= delta["high"] < 0
    assert delta["test"] == "sign flip, exact"
    assert delta["p"] == 2 / 2**10


@pytest.mark.parametrize(
    ("rate", "chance", "expected"),
    [(1.0, 0.0, "ceiling"), (0.0, None, "floor"), (0.5, 0.5, "chance"), (0.0, 0.25, "chance"), (0.7, 0.25, None)],
)
def test_flags_where_the_baseline_cannot_tell(
    tmp_path: Path, rate: float, chance: float | None, expected: str | None
) -> None:
    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        return Made(text="x", values={"exact_match": float(int(sample.id.rpartition("-")[2]) < rate * 30)})

    task = MadeTask(levels={"1k": 16}, depths=(0,), repeats=30, chance=chance)
    rows, _ = built(make_run(tmp_path / "run", answer, tasks=[task], arms=[DENSE, SNAP]))
    assert [row["scores"][0]["flag"] for row in rows] == [expected, expected]


def test_a_repeated_baseline_measures_its_noise(tmp_path: Path) -> None:
    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        flipped = repeat == 1 and sample.id.endswith("-0")
        return Made(text="x", values={"exact_match": float(not flipped)})

    task = MadeTask(levels={"1k": 16}, depths=(0,), repeats=10, answers=2)
    rows, _ = built(make_run(tmp_path / "run", answer, tasks=[task], arms=[DENSE, SNAP]))
    score = cell(rows, SNAP.name, "1k")["scores"][0]
    assert score["noise"] == {"repeats": 2, "spread": pytest.approx(0.1), "changed": 0.1}
    assert score["delta"]["value"] == 0
    assert score["delta"]["within_noise"] is True
    assert (score["n"], score["n_clusters"]) == (20, 10)
    once, _ = built(make_run(tmp_path / "once", answer, tasks=[SMALL], arms=[DENSE, SNAP]))
    assert once[0]["scores"][0]["noise"] is None


def test_grids_and_effective_length(tmp_path: Path) -> None:
    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        right = arm.name == "dense" or sample.level != "4k" or sample.depth == 1.0
        return Made(text="x", values={"exact_match": float(right)})

    task = MadeTask(levels={"4k": 64, "1k": 16, "2k": 32}, depths=(0.0, 0.5, 1.0), repeats=2)
    book = read(make_run(tmp_path / "run", answer, tasks=[task], arms=[DENSE, SNAP]))
    grid = views.grids(book)[1]
    assert (grid["arm"], grid["levels"], grid["depths"]) == (SNAP.name, ["1k", "2k", "4k"], [0.0, 0.5, 1.0])
    assert [[value["score"] for value in row] for row in grid["values"]] == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    lengths = {row["arm"]: row for row in views.effective_lengths(book, cells.build(book)[0])}
    assert (lengths["dense"]["level"], lengths["dense"]["at_least"]) == ("4k", True)
    assert (lengths[SNAP.name]["level"], lengths[SNAP.name]["at_least"], lengths[SNAP.name]["gap"]) == (
        "2k",
        False,
        False,
    )


def test_many_depths_are_binned(tmp_path: Path) -> None:
    task = MadeTask(levels={"1k": 16}, depths=tuple(i / 20 for i in range(21)), repeats=1)
    grid = views.grids(read(make_run(tmp_path / "run", retrieves({}), tasks=[task])))[0]
    assert grid["binned"]
    assert len(grid["depths"]) == 10
    assert sum(row[0]["n"] for row in grid["values"]) == 21


@pytest.mark.parametrize("repeats", [0, 1])
def test_cells_of_none_or_one(tmp_path: Path, repeats: int) -> None:
    task = MadeTask(levels={"1k": 16}, depths=(0,), repeats=repeats)
    rows, _ = built(make_run(tmp_path / "run", retrieves({}), tasks=[task], arms=[DENSE, SNAP]))
    assert len(rows) == 2 * repeats
    for row in rows:
        assert row["scores"][0]["n"] == 1
        assert row["scores"][0]["low"] < 0.3
    if rows:
        assert rows[1]["scores"][0]["delta"]["p"] == 1.0


def test_values_that_are_no_numbers_are_unscored(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", retrieves({}), tasks=[SMALL], arms=[DENSE])
    path = folder.scores("exact_match", "1")
    lines = path.read_text().splitlines()
    lines[0], lines[1] = lines[0].replace('"value":1.0', '"value":NaN'), lines[1].replace('"value":1.0', '"value":null')
    path.write_text("\n".join(lines) + "\n")
    book = read(folder)
    assert book.n_invalid == 1
    total = cells.build(book)[1][0]
    assert (total["scores"][0]["n"], total["scores"][0]["n_unscored"]) == (14, 2)


def test_damaged_and_foreign_lines_cost_only_themselves(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", retrieves({}), tasks=[SMALL], arms=[DENSE])
    lines = folder.responses.read_text().splitlines()
    folder.responses.write_text("\n".join(['{"a":1}', "rubbish", *lines[1:]]) + '\n{"torn":')
    book = read(folder)
    assert (book.damage.lines, book.damage.foreign) == ([2, 18], 1)
    assert cells.build(book)[1][0]["n_missing"] == 1


def test_the_same_folder_gives_the_same_numbers(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", retrieves({SNAP.name: 0.5}), tasks=[SMALL], arms=[DENSE, SNAP])
    assert built(folder) == built(folder)


def test_a_comparison_of_an_arm_with_itself_finds_nothing(tmp_path: Path) -> None:
    twin = MadeArm("twin")
    rows, totals = built(make_run(tmp_path / "run", retrieves({"dense": 0.6, "twin": 0.6}), arms=[DENSE, twin]))
    for row in rows + totals:
        delta = row["scores"][0]["delta"]
        if delta:
            assert (delta["value"], delta["p_holm"], delta["significant"]) == (0, 1.0, False)
            assert delta["low"] < 0 < delta["high"]
