"""Rankings of runs: who may stand beside whom; published figures: transcribed right and never ranked."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from click.testing import CliRunner
from loom_kit.runs import DENSE, Made, MadeArm, MadeTask, make_run, retrieves
from loom_report.cli.leaderboard import leaderboard
from loom_report.leaderboard import board
from loom_report.published import Published, tables
from loom_report.render.ranking import reference

from loom_core.api import RunError, Sample
from loom_core.run.store import RunFolder, read_json
from loom_core.run.writing import write_json

SNAP = MadeArm("snapkv:budget=4x", 0.25, query_aware=True)
THINK = MadeArm("think:budget=4x", 0.25, saves="simulated")
TASK = MadeTask(levels={"1k": 32}, repeats=4)


def made(path: Path, rates: dict[str, float] | None = None, **more: Any) -> RunFolder:
    return make_run(path, retrieves(rates or {}), **({"tasks": [TASK], "arms": [DENSE, SNAP, THINK]} | more))


def names(rankings: list[dict[str, Any]]) -> list[list[tuple[Any, str, str]]]:
    return [[(row["rank"], row["run"], row["arm"]) for row in ranking["rows"]] for ranking in rankings]


def test_runs_of_the_same_questions_share_a_ranking(tmp_path: Path) -> None:
    rankings = board([made(tmp_path / "a", {SNAP.name: 0.3}), made(tmp_path / "b", {SNAP.name: 0.6})])
    assert [ranking["saves"] for ranking in rankings] == ["real", "simulated"]
    real, simulated = names(rankings)
    assert sorted(real[:2]) == [(1, "a", "dense"), (1, "b", "dense")]
    assert real[2:] == [(3, "b", SNAP.name), (4, "a", SNAP.name)]
    assert {arm for _, _, arm in simulated} == {THINK.name}


@pytest.mark.parametrize("change", ["seed", "protocol", "version", "generation", "options"])
def test_other_settings_are_another_ranking(tmp_path: Path, change: str) -> None:
    one = made(tmp_path / "a", arms=[DENSE])
    more: dict[str, Any] = {"seed": {"seed": 1}, "protocol": {"protocol": "context-only"}}.get(change, {})
    other = made(tmp_path / "b", arms=[DENSE], **more)
    plan = read_json(other.plan)
    task = plan["tasks"][0]
    task |= {"version": {"version": "2"}, "options": {"options": {"words": 3}}}.get(change, {})
    if change == "generation":
        task["generation"]["max_tokens"] = 99
    write_json(other.plan, plan)
    rankings = board([one, other])
    assert len(rankings) == 2
    assert len({ranking["settings"] for ranking in rankings}) == 2


def test_incomplete_runs_have_no_rank(tmp_path: Path) -> None:
    def partial(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made | None:
        return None if sample.id.endswith("-0") else Made(text="x", values={"exact_match": 1.0})

    folder = make_run(tmp_path / "b", partial, tasks=[TASK], arms=[DENSE])
    rows = board([made(tmp_path / "a", {"dense": 0.2}, arms=[DENSE]), folder])[0]["rows"]
    assert [(row["run"], row["rank"]) for row in rows] == [("a", 1), ("b", None)]


def test_a_metric_without_bounds_is_not_ranked(tmp_path: Path) -> None:
    def answer(sample: Sample, arm: MadeArm, repeat: int, generator: random.Random) -> Made:
        return Made(text="x", values={"perplexity": generator.random()})

    task = MadeTask(levels={"1k": 32}, metrics={"perplexity": (None, None)}, higher_is_better=False)
    rows = board([make_run(tmp_path / "a", answer, tasks=[task], arms=[DENSE])])[0]["rows"]
    assert (rows[0]["rank"], rows[0]["average"]) == (None, None)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing to report"):
        board([RunFolder(tmp_path)])


# --- published figures -----------------------------------------------------------------------------------------------


def published(short: str) -> dict[int, Published]:
    return {table.number: table for table in tables() if table.short == short}


def test_every_table_is_there_and_whole() -> None:
    sizes = {(one.short, one.number): (len(one.rows), len(one.columns)) for one in tables()}
    assert sizes == {
        ("LOOM-Scope", 5): (14, 14),
        ("LOOM-Scope", 6): (6, 15),
        ("LOOM-Scope", 7): (21, 15),
        ("LOOM-Scope", 8): (7, 3),
        ("KV Cache Compression", 2): (45, 11),
        ("KV Cache Compression", 5): (20, 11),
        ("KV Cache Compression", 6): (20, 18),
        ("KV Cache Compression", 7): (20, 18),
        ("KV Cache Compression", 8): (20, 18),
        ("KV Cache Compression", 9): (5, 17),
    }
    for one in tables():
        assert all(len(row) == len(one.columns) for row in one.rows), one.number
        assert all(0 <= value <= 100 for row in one.rows for value in row if isinstance(value, float))


def test_averages_agree_with_their_rows() -> None:
    """A figure read wrongly would break the average that its source prints beside it."""
    for row in published("LOOM-Scope")[5].rows:
        values = [value for value in row if isinstance(value, float)]
        assert abs(fmean(values[1:]) - values[0]) <= 0.011, row[0]
    papers = published("KV Cache Compression")
    for number in (6, 7, 8, 9):
        for row in papers[number].rows:
            values = [value for value in row if isinstance(value, float)]
            assert abs(fmean(values[:-1]) - values[-1]) <= 0.1, (number, row)  # both sides are rounded to 0.1


def test_tables_of_one_paper_agree() -> None:
    """The averages by category are those of the tables by task."""
    papers = published("KV Cache Compression")
    by_task = {row[:2]: row[-1] for number in (6, 7, 8) for row in papers[number].rows}
    by_task |= {(row[0], "-"): row[-1] for row in papers[9].rows}
    categories = {row[:2]: row[-2] for number in (2, 5) for row in papers[number].rows}
    assert by_task == categories


def test_times_add_up_where_their_source_does() -> None:
    """In four rows the printed sum is not that of the printed parts (by these seconds); they stand as printed."""

    def seconds(text: object) -> int:
        hours, minutes, rest = map(int, str(text).split(":"))
        return 3600 * hours + 60 * minutes + rest

    rows = [[seconds(value) for value in row[2:]] for row in published("LOOM-Scope")[6].rows]
    assert [sum(parts) - total for total, *parts in rows] == [0, -81754, -940, -52915, 0, 52935]


@pytest.mark.parametrize("form", ["table", "md", "json"])
def test_on_the_command_line(tmp_path: Path, form: str) -> None:
    folder = made(tmp_path / "a", tasks=[MadeTask(name="ruler:vt", levels={"1k": 32}, repeats=2)])
    command = [str(folder.path), "--format", form]
    done = CliRunner().invoke(leaderboard, command, catch_exceptions=False, env={"COLUMNS": "120"})
    assert done.exit_code == 0
    if form == "json":
        made_json = json.loads(done.output)
        assert [one["number"] for one in made_json["published"]] == [5, 6, 7, 8]
        assert all(row["rank"] for ranking in made_json["rankings"] for row in ranking["rows"])
    else:
        assert "published figures" in done.output
        assert "KV Cache Compression" not in done.output
    none = CliRunner().invoke(leaderboard, [*command, "--published", "none"], catch_exceptions=False)
    assert "LOOM-Scope" not in none.output


def test_published_rows_alone() -> None:
    done = CliRunner().invoke(leaderboard, ["--format", "md"], catch_exceptions=False)
    assert done.output.count("published figures:") == 10
    assert not any("rank" in table.heads for table in reference(tables()))
