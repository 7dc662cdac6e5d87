"""The authors' scores and table: gold rows, means, effective length."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from loom_bench_ruler.benchmark import Ruler
from loom_bench_ruler.plugin import TASKS, RulerOptions
from loom_kit.gold import agrees, score_gold_row

from loom_core.api import Graded, Line, Prompt, Sample, Scored

ROOT = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("LOOM_SHARED", ROOT.parent / "shared"))


@pytest.mark.parametrize("name", ["ruler_string_match_all", "ruler_string_match_part"])
def test_gold_rows(name: str) -> None:
    file = SHARED / "gold-examples" / f"{name}.json"
    if not file.is_file():
        pytest.skip(f"no gold rows at {file.parent}")
    rows = json.loads(file.read_text("utf-8"))
    assert rows
    for row in rows:
        assert agrees(score_gold_row(row), row["official_score"], 1e-6), row


@pytest.mark.parametrize(
    ("prediction", "references", "every", "one"),
    [
        ("7654321 and 1234567", ["1234567", "7654321"], 100.0, 100.0),
        ("1234567", ["1234567", "7654321", "1111111"], 33.33, 100.0),
        ("PARIS", ["paris"], 100.0, 100.0),
        ("", ["a"], 0.0, 0.0),
        ("123\x004567", ["1234567"], 0.0, 0.0),
    ],
)
def test_by_hand(prediction: str, references: list[str], every: float, one: float) -> None:
    row = {"benchmark": "ruler", "prediction": prediction, "references": references}
    assert Ruler.score_gold({**row, "metric": "string_match_all"}) == every
    assert Ruler.score_gold({**row, "metric": "string_match_part"}) == one


def graded(task: str, level: str, value: float | None) -> Graded:
    sample = Sample(id="x", task=task, prompt=Prompt(segments=()), references=("a",), level=level)
    scored = {} if value is None else {"ruler_match_all": Scored(value=value)}
    return Graded(task=task, sample=sample, repeat=0, scored=scored, answered=value is not None)


def lines(rows: list[Graded]) -> dict[str, Line]:
    found = Ruler(RulerOptions()).aggregate(rows)
    assert len({line.name for line in found}) == len(found)
    return {line.name: line for line in found}


def test_means_and_effective_length() -> None:
    rows = [graded(task, "4k", 1.0) for task in TASKS] + [graded(task, "8k", 0.9) for task in TASKS]
    rows += [graded(task, "16k", 0.5) for task in TASKS] + [graded("vt", "16k", 0.25)]
    table = lines(rows)
    assert table["vt 16k"].value == 37.5
    assert table["vt 16k"].n == 2
    assert table["mean 4k"].value == 100.0
    assert table["mean 8k"].value == pytest.approx(90.0)
    assert table["mean 16k"].value == pytest.approx((12 * 50 + 37.5) / 13)
    assert (table["effective length"].value, table["effective length"].digits) == (8192.0, 0)
    means = [100.0, 90.0, (12 * 50 + 37.5) / 13]
    assert table["weighted mean, rising"].value == pytest.approx((means[0] + 2 * means[1] + 3 * means[2]) / 6)
    assert table["weighted mean, falling"].value == pytest.approx((3 * means[0] + 2 * means[1] + means[2]) / 6)
    assert not table["mean 4k"].note


def test_a_part_of_the_tasks_says_so() -> None:
    table = lines([graded("vt", "4k", 1.0), graded("cwe", "4k", 0.5), graded("cwe", "4k", None)])
    assert table["mean 4k"].note == "mean of 2 of 13 tasks"
    assert (table["mean 4k"].missing, table["cwe 4k"].missing) == (1, 1)
    assert table["effective length"].value == 0
    assert "2 of 13" in table["effective length"].note
    assert "weighted mean, rising" not in table


def test_a_task_without_answers_leaves_no_mean() -> None:
    table = lines([graded("vt", "4k", 1.0), graded("cwe", "4k", None)])
    assert table["cwe 4k"].value is None
    assert table["mean 4k"].value is None
    assert table["effective length"].value is None


def test_variants_never_meet() -> None:
    table = lines([graded("vt", "4k", 1.0), graded("loom_vt", "4k", 0.0)])
    assert table["mean 4k"].value == 100.0
    assert table["loom_mean 4k"].value == 0.0
    assert lines([]) == {}
