"""Answers without a value: outside the mean, counted, with the bounds beside it in every form; advice that can help."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from loom_kit.runs import DENSE, Made, MadeArm, MadeTask, make_run
from loom_report.build import build
from loom_report.render import beside, markdown, tables, terminal
from loom_report.render.metrics import other_metrics
from loom_report.unscored import bounds, weighed
from rich.console import Console

from loom_core.api import Json, Sample
from loom_core.run.store import RunFolder

TASK = MadeTask(levels={"1k": 64}, depths=(0,), repeats=8, metrics={"exact_match": (0.0, 1.0), "contains": (0.0, 1.0)})


def made(path: Path) -> tuple[dict[str, Json], Path]:
    """Eight answers: four right, two wrong, two that the judge did not mark; the second metric has all values."""

    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        number = int(sample.id.rpartition("-")[2])
        value = None if number >= 6 else float(number < 4)
        return Made(text="x", values={"exact_match": value, "contains": 1.0})

    folder = make_run(path, answer, tasks=[TASK], arms=[DENSE])
    return build(folder)[0], folder.path


def test_by_hand() -> None:
    assert bounds([1, 1, 1, 1, 0, 0], 2, 0.0, 1.0) == [0.5, 0.75]
    assert bounds([1, 0], 2, 1.0, 0.0) == [0.75, 0.25], "lower is better: all wrong is the higher mean"
    assert bounds([], 3, 1.0, 10.0) == [1.0, 10.0]
    assert bounds([1.0], 0, 0.0, 1.0) is None and bounds([1.0], 1, 0.0, float("inf")) is None
    whole: Json = {"score": 1.0, "bounds": None}
    levels: list[tuple[float, Json]] = [(0.75, {"score": 0.5, "bounds": [0.4, 0.8]}), (0.25, whole)]
    assert weighed(levels) == pytest.approx([0.55, 0.85])
    assert weighed([(1.0, whole)]) is None
    assert weighed([*levels, (0.0, {"score": None, "bounds": None})]) is None


def test_bounds_stand_beside_the_mean_in_every_form(tmp_path: Path) -> None:
    report, _ = made(tmp_path / "run")
    score = report["totals"][0]["scores"][0]
    assert (score["n"], score["n_unscored"], score["bounds"]) == (6, 2, [0.5, 0.75])
    assert score["score"] == pytest.approx(2 / 3)
    page = io.StringIO()
    terminal.show(report, Console(file=page, width=160))
    shown = "0.500 to 0.750"
    for text in (page.getvalue(), markdown.render(report), tables.to_latex(report)):
        assert shown in text and beside.BOUNDS_NOTE in " ".join(text.split())
    row = tables.to_csv(report).splitlines()
    found = dict(zip(row[0].split(","), row[1].split(","), strict=False))
    assert (found["score_all_wrong"], found["score_all_right"]) == ("0.5", "0.75")


def test_the_other_metrics_are_shown(tmp_path: Path) -> None:
    report, _ = made(tmp_path / "run")
    table = other_metrics(report, report["tasks"][0])
    assert table is not None and table.heads == ["arm", "contains", "n", "bounds"]
    assert [cell.text for cell in table.rows[0]] == ["dense", "1.000", "8", "–"]
    assert "other metrics" in markdown.render(report)


def test_calls_and_the_routed_share_stand_in_every_table_of_an_arm_with_a_strategy(tmp_path: Path) -> None:
    report, _ = made(tmp_path / "run")
    assert "2+ calls" not in tables.headline(report, report["tasks"][0]).heads, "no arm has a strategy"
    report["arms"][0]["parts"] = [{"name": "self-route", "kind": "strategy"}]
    report["totals"][0]["cost"] |= {"calls": 1.25, "several_calls": 0.25}
    for wide in (False, True):
        table = tables.headline(report, report["tasks"][0], wide=wide)
        row = dict(zip(table.heads, (cell.text for cell in table.rows[0]), strict=True))
        assert (row["calls"], row["2+ calls"]) == ("1.25", "25 %") and beside.CALLS_NOTE in table.notes
    for text in (markdown.render(report), tables.to_latex(report)):
        assert "2+ calls" in text and "routed share" in text
    heads, *rows = tables.to_csv(report).splitlines()
    found = dict(zip(heads.split(","), rows[-1].split(","), strict=False))
    assert (found["calls"], found["several_calls"]) == ("1.25", "0.25")


def test_only_advice_that_can_help(tmp_path: Path) -> None:
    report, path = made(tmp_path / "run")
    told = " ".join(banner["text"] for banner in report["banners"])
    assert "2 answers have no value" in told and "`loom score`" not in told
    for scores in path.glob("scores-exact_match*"):
        scores.unlink()
    report, _ = build(RunFolder(path))
    told = " ".join(banner["text"] for banner in report["banners"])
    assert "8 answers have no score yet" in told and "`loom score` scores them" in told
