"""The report as a dict and on disk: its schema, its banners, its formats, every state a run can be in."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from loom_kit.runs import DENSE, Answerer, Made, MadeArm, MadeTask, make_run, retrieves
from loom_report import files as report_module
from loom_report.cli.report import report as report_command
from loom_report.render import authors, terminal, text
from loom_report.render.absences import data_banners
from rich.console import Console

from loom_core.api import Json, RunError, Sample, UsageError
from loom_core.run.store import RunFolder, read_json
from loom_core.run.writing import write_json

SNAP = MadeArm("snapkv:budget=4x", 0.25, query_aware=True)
THINK = MadeArm("think:budget=4x", 0.25, saves="simulated")
TASK = MadeTask(levels={"1k": 64, "2k": 128}, depths=(0.0, 1.0), repeats=4)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", retrieves({SNAP.name: 0.5}), tasks=[TASK], arms=[DENSE, SNAP, THINK])


def banners(folder: RunFolder) -> str:
    return "\n".join(f"{b['kind']}: {b['text']}" for b in report_module.build(folder)[0]["banners"])


def shown(report: dict[str, Json], width: int = 100) -> str:
    console = Console(width=width, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        terminal.show(report, console)
    return capture.get()


def test_the_report_of_a_run(run: RunFolder) -> None:
    report = report_module.write(run)
    assert report == read_json(run.report_json)
    assert report["schema"] == 1
    assert set(report) >= {"run", "model", "server", "protocol", "state", "banners", "arms", "tasks", "cells", "totals"}
    assert report["state"]["n_planned"] == report["state"]["n_answered"] == 48
    assert report["state"]["complete"] is True
    assert [arm["saves"] for arm in report["arms"]] == ["none", "real", "simulated"]
    assert [arm["query_aware"] for arm in report["arms"]] == [False, True, False]
    assert "path" not in report["model"]
    assert sorted(path.name for path in run.path.glob("report*")) == ["report.html", "report.json", "report.md"]
    assert not list(run.path.glob("*.partial"))


def test_the_same_run_gives_the_same_files(run: RunFolder) -> None:
    report_module.write(run)
    first = [path.read_bytes() for path in (run.report_json, run.report_md, run.report_html)]
    report_module.write(run)
    assert first == [path.read_bytes() for path in (run.report_json, run.report_md, run.report_html)]


def test_the_terminal_table_fits_100_columns(run: RunFolder) -> None:
    lines = shown(report_module.write(run)).splitlines()
    assert max(map(len, lines)) <= 100
    row = next(line for line in lines if SNAP.name in line)
    for part in ("0.500", "−0.500*", "25 %", "kB", "ms"):
        assert part in row
    assert "[RQ]" in row
    assert "[S]" in next(line for line in lines if THINK.name in line)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_tables_fit_the_terminal(tmp_path: Path, width: int) -> None:
    """Columns that do not fit go into a further table; long arms break after their separators."""
    long = MadeArm("bm25:k=5+snapkv:budget=4x,kernel=15,pooling=max,group=mean", 0.25)
    levels = {f"{k}k": 16 * k for k in (1, 2, 4, 8, 16, 32, 64, 128)}
    folder = make_run(tmp_path / "run", retrieves({}), tasks=[MadeTask(levels=levels, repeats=1)], arms=[DENSE, long])
    lines = shown(report_module.write(folder), width).splitlines()
    assert max(map(len, lines)) <= width
    said = "\n".join(lines)
    for head in ("score", "95 % CI", "Δ dense", "kept", "KV held", "TTFT", "TPOT", "holds to", *levels):
        assert head in said
    assert "group=mean" in said
    assert said.count("TPOT") == 1
    assert "…" not in said


def test_simulated_savings_are_never_on_the_front(run: RunFolder) -> None:
    points = {row["arm"]: row for row in report_module.build(run)[0]["pareto"]}
    assert points["dense"]["front"]
    assert not points[THINK.name]["front"]
    assert not points[THINK.name]["ranked"]


def test_the_front_is_what_nothing_dominates(tmp_path: Path) -> None:
    arms = [DENSE, MadeArm("good:budget=2x", 0.5), MadeArm("bad:budget=2x", 0.5), MadeArm("small:budget=8x", 0.125)]
    rates = {"good:budget=2x": 0.95, "bad:budget=2x": 0.3, "small:budget=8x": 0.6}
    points = report_module.build(make_run(tmp_path / "run", retrieves(rates), arms=arms))[0]["pareto"]
    known = [p for p in points if p["seconds"] is not None]
    assert known == points
    for point in points:
        beaten = any(
            o is not point
            and o["score"] >= point["score"]
            and o["bytes_held"] <= point["bytes_held"]
            and o["seconds"] <= point["seconds"]
            for o in points
        )
        assert point["front"] is not beaten


def test_retention_needs_two_budgets(tmp_path: Path) -> None:
    arms = [DENSE, *(MadeArm(f"snapkv:budget={b}x", 1 / b) for b in (2, 4)), MadeArm("random:budget=4x", 0.25)]
    rows = report_module.build(make_run(tmp_path / "run", retrieves({"snapkv:budget=4x": 0.5}), arms=arms))[0][
        "retention"
    ]
    assert [row["method"] for row in rows] == ["snapkv"]
    assert [point["compression"] for point in rows[0]["points"]] == pytest.approx([2, 4])
    assert rows[0]["points"][0]["retention"] == 1.0
    assert not {"low", "high"} & set(rows[0]["points"][0]), "no interval that takes dense's score as known"


def fails(kind: str) -> Answerer:
    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made | None:
        first = sample.id.endswith("-0") and arm.name != "dense"
        if kind == "missing" and first:
            return None
        if kind == "error" and first:
            return Made(error="CUDA out of memory\nmore")
        values = {} if kind == "unscored" and first else {"exact_match": 1.0}
        batch = 8 if kind == "batch" and arm.name != "dense" else 1
        return Made(text="x", values=values, n_dropped=9 if kind == "truncated" and first else 0, batch=batch)

    return answer


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("error", "error: 4 of 32 answers failed; scores are over the answers that were given. The first reason: CUDA"),
        ("missing", "warning: 4 of 32 planned answers are missing: this report is of a partial run."),
        ("unscored", "warning: 4 answers have no value and are outside the mean"),
        ("truncated", "warning: 4 prompts were truncated: 36 tokens dropped in all."),
        ("batch", "their times are not comparable"),
        ("none", "note: passkey:loom: the baseline is within its noise of the best score: a loss can show"),
    ],
)
def test_what_a_reader_must_know_first(tmp_path: Path, kind: str, words: str) -> None:
    folder = make_run(tmp_path / "run", fails(kind), tasks=[TASK], arms=[DENSE, SNAP])
    assert words in banners(folder)
    report = report_module.write(folder)
    said = " ".join(shown(report).split())
    assert words.removeprefix("error: ").removeprefix("warning: ").removeprefix("note: ")[:60] in said
    assert (kind in ("error", "missing", "unscored")) == ("12 of 16" in folder.report_html.read_text("utf-8"))


def test_skipped_questions_are_counted(run: RunFolder) -> None:
    jobs = [job for job in run.read_jobs() if not (job.arm == SNAP.name and job.sample.startswith("2k"))]
    run.write_jobs(jobs)
    report, book = report_module.build(run)
    assert book.strangers == 8
    assert report["state"]["n_skipped"] == 8
    assert "8 answers were left out: their prompts are too long" in banners(run)
    assert "8 recorded answers are not in the plan" in banners(run)


def test_unavailable_tasks_and_extracts_are_named(tmp_path: Path) -> None:
    gone = MadeTask(name="longbench:qasper", unavailable="data.zip is not in the mirror")
    folder = make_run(tmp_path / "run", retrieves({}), tasks=[TASK, gone], arms=[DENSE, SNAP])
    plan = read_json(folder.plan)
    plan["tasks"][0]["extract"] = True
    write_json(folder.plan, plan)
    assert "longbench:qasper is unavailable here: data.zip is not in the mirror" in banners(folder)
    assert "passkey:loom was run on an extract of its data" in banners(folder)
    report_module.write(folder)
    assert "Unavailable here: data.zip is not in the mirror" in folder.report_md.read_text("utf-8")


def test_the_authors_tables_are_shown(run: RunFolder) -> None:
    line = {"name": "passkey", "metric": "accuracy", "value": 61.25, "n": 16, "missing": 0, "digits": 1, "note": ""}
    tables_by_arm = {
        "dense": [line],
        SNAP.name: [line | {"value": None}],
        THINK.name: {"error": "ValueError: <b>no</b>"},
    }
    write_json(run.official, {"passkey": tables_by_arm})
    report = report_module.write(run)
    drawn = authors.tables(report)[0]
    assert [cell.text for cell in drawn.rows[0]] == ["passkey", "accuracy", "61.2", text.NONE, text.NONE]
    page = run.report_html.read_text("utf-8")
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in page
    assert "61.2" in run.report_md.read_text("utf-8")


def test_a_plan_without_any_response(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", lambda *_: None, tasks=[TASK], arms=[DENSE, SNAP])
    folder.responses.unlink()
    folder.scores("exact_match", "1").unlink()
    report = report_module.write(folder)
    assert "None of the 32 planned answers has been given yet" in banners(folder)
    assert all(row["scores"][0]["score"] is None for row in report["cells"])
    assert text.NONE in shown(report)


def test_a_plan_without_any_job(tmp_path: Path) -> None:
    gone = MadeTask(unavailable="no data here")
    folder = make_run(tmp_path / "run", retrieves({}), tasks=[gone], arms=[DENSE])
    folder.manifest.unlink()
    report = report_module.write(folder)
    assert "No answer was planned" in banners(folder)
    assert (report["cells"], report["totals"], report["grids"]) == ([], [], [])
    shown(report)


@pytest.mark.parametrize("levels", [{"1k": 16}, {"1k": 16, "2k": 32}])
@pytest.mark.parametrize("repeats", [1, 2])
def test_one_arm_one_answer(tmp_path: Path, levels: dict[str, int], repeats: int) -> None:
    task = MadeTask(levels=levels, depths=(None,), repeats=repeats)
    folder = make_run(tmp_path / "run", retrieves({"dense": 0.0}), tasks=[task], arms=[DENSE])
    report = report_module.write(folder)
    assert report["grids"] == []
    assert "dense" in shown(report)


def test_a_metric_without_bounds(tmp_path: Path) -> None:
    def answer(sample: Sample, arm: MadeArm, repeat: int, generator: random.Random) -> Made:
        return Made(text="x", values={"perplexity": 5 + 4 * generator.random()})

    task = MadeTask(
        levels={"1k": 16, "2k": 32},
        repeats=3,
        metrics={"perplexity": (None, None)},
        higher_is_better=False,
        chance=None,
    )
    folder = make_run(tmp_path / "run", answer, tasks=[task], arms=[DENSE, SNAP])
    report = report_module.write(folder)
    # Its interval would cover too little with few documents (docs/statistics.md): there is none, and it says why.
    why = "none: fewer than 30 documents, of a metric without bounds"
    assert {cell["scores"][0]["interval"] for cell in report["cells"]} == {why}
    assert report["effective_lengths"] == []
    json.dumps(report, allow_nan=False)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing to report"):
        report_module.write(RunFolder(tmp_path / "nowhere"))
    with pytest.raises(RunError):
        (tmp_path / "plan.json").write_text("{")
        report_module.write(RunFolder(tmp_path))


@pytest.mark.parametrize("form", ["md", "json", "csv", "latex"])
def test_formats_on_the_command_line(run: RunFolder, form: str) -> None:
    done = CliRunner().invoke(report_command, [str(run.path), "--format", form], catch_exceptions=False)
    assert done.exit_code == 0
    assert SNAP.name in done.output or form == "latex"
    assert not run.report_json.exists()
    if form == "json":
        assert json.loads(done.output)["schema"] == 1
    if form == "csv":
        lines = done.output.splitlines()
        assert len(lines) == 1 + 3 * 2 + 3
        assert lines[0].startswith("task,level,arm,metric,version,score,low,high")
    if form == "latex":
        assert done.output.count(r"\toprule") == 2
        assert r"25 \%" in done.output


def test_the_command_writes_and_shows(run: RunFolder) -> None:
    done = CliRunner().invoke(report_command, [str(run.path)], catch_exceptions=False, env={"COLUMNS": "100"})
    assert (done.exit_code, run.report_html.exists()) == (0, True)
    assert "holds to" in done.output
    done = CliRunner().invoke(report_command, [str(run.path), "--html"], catch_exceptions=False)
    assert done.output.strip() == str(run.report_html)
    with pytest.raises(UsageError, match="unknown report format"):
        CliRunner().invoke(report_command, [str(run.path), "--format", "latx"], catch_exceptions=False)
    with pytest.raises(UsageError, match="exclude"):
        CliRunner().invoke(report_command, [str(run.path), "--html", "--format", "md"], catch_exceptions=False)


def test_many_tasks_without_data_share_a_banner() -> None:
    tasks = [{"name": f"b:t{i}", "unavailable": "no file" if i < 4 else None, "extract": i > 4} for i in range(7)]
    shown = [banner["text"] for banner in data_banners(tasks)]
    assert shown[0].startswith("4 of 7 tasks are unavailable here") and shown[0].endswith("b:t0, b:t1, b:t2, b:t3")
    assert [text.partition(" ")[0] for text in shown[1:]] == ["b:t5", "b:t6"]


def test_the_page_lists_absent_tasks_once_and_links_only_to_those_asked(tmp_path: Path) -> None:
    gone = [MadeTask(name=f"longbench:t{i}", unavailable="no file") for i in range(4)]
    folder = make_run(tmp_path / "run", retrieves({}), tasks=[TASK, *gone], arms=[DENSE, SNAP])
    report_module.write(folder)
    page = folder.report_html.read_text("utf-8")
    assert page.count("<h2>Unavailable here</h2>") == 1 and "<b>longbench:t3</b>: no file" in page
    assert "<h2>longbench:t3</h2>" not in page and 'href="#task-4"' not in page


def test_three_flags_share_a_banner() -> None:
    tasks = [{"name": f"b:t{i}", "unavailable": None, "extract": True} for i in range(3)]
    (shown,) = [banner["text"] for banner in data_banners(tasks)]
    assert shown.startswith("b:t0, b:t1, b:t2 were run on an extract")
