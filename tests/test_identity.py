"""Whatever decides an answer or a score is part of a run: what is upgraded or edited in between is never mixed in."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
DOUBLE = ("--server", "double", "--model", "toy", "-q")
TOML = """
[benchmark]
name = "clinic"
version = "1"
summary = "notices"
capability = "retrieval"
licence = "CC0-1.0"

[tasks.all]
records = "notices.jsonl"
prompt = "{text}\\n{ask}"
context = ["text"]
question = ["ask"]
references = "answers"
metrics = ["fable_exact"]
max_tokens = 8
"""


@pytest.fixture
def almanac(loom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line with the almanac installed; its versions are those that ALMANAC names."""
    site = tmp_path / "almanac-site"
    shutil.copytree(HERE / "third_party" / "loom_bench_almanac", site / "loom_bench_almanac")
    info = site / "loom_bench_almanac-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: loom-bench-almanac\nVersion: 0.1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("[loom]\nalmanac = loom_bench_almanac\n", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(site) + os.pathsep + os.environ["PYTHONPATH"])
    return loom


def new(*kinds: str) -> dict[str, str]:
    return {"ALMANAC": ",".join(kinds)}


def mean(loom: Any, run: str) -> Any:
    report = json.loads(loom("report", run, "--format", "json").out)
    return report["totals"][0]["scores"][0]


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        (("benchmark",), "benchmark almanac, version: 1 → 2"),
        (("method",), "almanac-same.version: 1 → 2"),
        (("limits",), "task almanac:moon, generation.max_tokens: 8 → 16"),
        (("more",), "task almanac:tide: (absent) → (present)"),
    ],
)
def test_a_run_is_not_continued_with_what_changed(almanac: Any, kinds: tuple[str, ...], says: str) -> None:
    """An incomplete run: no answer of the new version falls among those of the old one."""
    half = (*DOUBLE, "--server-option", "errors=0.5", "--accel", "almanac-same")
    almanac("run", "almanac", *half, "--out", "r", code=None)
    before = almanac.records(almanac.cwd / "r")
    for again in (("run", "r", "-q"), ("run", "almanac", *half, "--out", "r")):
        refused = almanac(*again, code=1, env=new(*kinds))
        assert "has changed since it was planned" in refused.err and says in " ".join(refused.err.split())
        assert almanac.records(almanac.cwd / "r") == before


def test_the_same_command_after_an_upgrade_is_a_new_run(almanac: Any) -> None:
    """Named by nobody, the new run has a folder of its own, found again by the same command; so has the old one."""
    command = ("run", "almanac", "--server", "double", "--model", "toy")
    almanac(*command)
    first = almanac.folder()
    done = almanac(*command, env=new("benchmark"))
    assert "this is a new run" in done.out + done.err and "benchmark almanac, version: 1 → 2" in done.out + done.err
    assert len(list((almanac.cwd / "runs").iterdir())) == 2
    for kinds in ((), ("benchmark",)):
        almanac(*command, env=new(*kinds))
    folders = list((almanac.cwd / "runs").iterdir())
    assert len(folders) == 2 and all(len(almanac.records(folder)) == 4 for folder in folders)
    plans = {folder: json.loads((folder / "plan.json").read_text("utf-8")) for folder in folders}
    limits = {folder == first: plan["tasks"][0]["generation"]["max_tokens"] for folder, plan in plans.items()}
    assert limits == {True: 8, False: 16}


def test_scores_of_a_new_metric_version_are_shown(almanac: Any) -> None:
    """`loom score` shows what it has just made; a report without scoring says whose scores it shows."""
    almanac("run", "almanac", *DOUBLE, "--out", "r")
    assert mean(almanac, "r")["score"] == 0.25
    shown = almanac("report", "r", env=new("metric"))
    assert "metric almanac_seen: scored by version 1, installed is 2; `loom score r` scores it again" in shown.out
    almanac("score", "r", env=new("metric"))
    assert mean(almanac, "r")["score"] == 0.75
    plan = json.loads((almanac.cwd / "r" / "plan.json").read_text("utf-8"))
    assert plan["tasks"][0]["metrics"][0]["version"] == "2"
    assert "installed is" not in almanac("report", "r", env=new("metric")).out


def test_a_metric_upgraded_in_the_middle_scores_all_answers(almanac: Any) -> None:
    """The answers do not depend on it: the run goes on, and every answer is scored by the version that is installed."""
    half = (*DOUBLE, "--server-option", "errors=0.5")
    almanac("run", "almanac", *half, "--out", "r", code=None)
    for _ in range(6):
        if almanac("run", "r", "-q", env=new("metric"), code=None).code == 0:
            break
    total = mean(almanac, "r")
    assert total["n"] == 4 and total["score"] == 0.75


def test_scored_by_another_version_of_the_benchmark(almanac: Any) -> None:
    almanac("run", "almanac", *DOUBLE, "--out", "r")
    almanac("score", "r", env=new("benchmark"))
    report = json.loads((almanac.cwd / "r" / "report.json").read_text("utf-8"))
    said = "almanac: asked with version 1, scored by version 2 of the benchmark."
    assert said in [banner["text"] for banner in report["banners"]]
    lost = almanac("score", "r", env=new("gone"), code=1)
    assert "no such task" in lost.err and "loom-bench-almanac 0.1.0" in lost.err


def test_an_edited_description_is_asked_anew(loom: Any) -> None:
    """Records, wording, limits or metrics of a described benchmark: the same command asks what it says now."""
    (loom.cwd / "clinic.toml").write_text(TOML, "utf-8")
    record = {"text": "The clinic has code 48210. It opens at 07:10.", "ask": "Which code?", "answers": ["48210"]}
    (loom.cwd / "notices.jsonl").write_text(json.dumps(record) + "\n", "utf-8")
    command = ("run", "./clinic.toml", *DOUBLE)
    loom(*command)
    first = loom.folder()
    (loom.cwd / "notices.jsonl").write_text(json.dumps(record | {"ask": "When?", "answers": ["07:10"]}) + "\n", "utf-8")
    refused = loom("run", first, "-q", code=1)
    assert "benchmark clinic, version: 1+" in " ".join(refused.err.split())
    loom(*command)
    (second,) = {*(loom.cwd / "runs").iterdir()} - {first}
    assert "When?" in (second / "samples.jsonl").read_text("utf-8")
    (loom.cwd / "clinic.toml").write_text(TOML.replace("max_tokens = 8", "max_tokens = 4"), "utf-8")
    loom(*command)
    assert len(list((loom.cwd / "runs").iterdir())) == 3
