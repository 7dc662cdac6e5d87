"""Several systems in one study: a run folder each, one report with every arm, differences paired by question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loom_lab.study import Joined, read_study, run_study

from loom_core.api import RunError, UsageError, installed
from loom_core.cli.progress import Quiet
from loom_core.run.store import read_json

STUDY = """
benchmarks = ["passkey@words=64"]
limit = 6
server = "double"
[systems.right]
accel = ["truncate:budget=0.5"]
[systems.wrong]
server_options = {answers = "null"}
"""


def run(tmp_path: Path, text: str = STUDY) -> Joined:
    path = tmp_path / "study.toml"
    path.write_text(text)
    study = read_study(path, {"out": str(tmp_path / "out")})
    assert study is not None
    return run_study(study, installed(), ["loom", "run"], Quiet())


def test_one_command_one_report(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 0 and result.outcome.planned == 18
    arms = {arm["name"]: arm for arm in result.report["arms"]}
    assert list(arms) == ["dense", "truncate:budget=0.5", "wrong/dense"]
    assert [arm["baseline"] for arm in arms.values()] == [True, False, False]
    assert arms["wrong/dense"]["system"] == "wrong"
    rows = {row["arm"]: row["scores"][0] for row in result.report["totals"]}
    assert rows["dense"]["score"] == 1.0 and rows["wrong/dense"]["score"] == 0.0
    assert rows["wrong/dense"]["delta"]["value"] == -1.0
    told = " ".join(result.report["notes"])
    assert "system wrong: loom-tiny on double" in told and "wrong/…" in told
    page = (tmp_path / "out" / "report.html").read_text()
    assert "wrong/dense" in page and "system wrong</dt><dd>loom-tiny on double" in page
    assert read_json(tmp_path / "out" / "wrong" / "report.json")["arms"][0]["baseline"], "its own dense baseline"


def test_again_asks_nothing_and_gives_the_same(tmp_path: Path) -> None:
    first = run(tmp_path).report
    recorded = (tmp_path / "out" / "wrong" / "responses.jsonl").read_bytes()
    assert run(tmp_path).report["totals"] == first["totals"]
    assert (tmp_path / "out" / "wrong" / "responses.jsonl").read_bytes() == recorded


def test_a_system_that_cannot_start_is_told(tmp_path: Path) -> None:
    text = STUDY + '[systems.absent]\nserver = "hf"\nmodel = "./nowhere"\n'
    result = run(tmp_path, text)
    assert result.exit_code == 3 and list(result.failed) == ["absent"]
    told = " ".join(result.report["notes"])
    assert "system absent did not run" in told


def test_different_questions_are_never_paired(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="different questions"):
        run(tmp_path, STUDY + "seed = 5\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("systems = 3", "not a table"),
        ("[systems.'a/b']\nserver='double'", "plain name"),
        ("[systems.a]\nserverr='double'", "unknown setting"),
        ("[systems.a]\nprotocol='query-aware'\n[systems.b]\nprotocol='context-only'", "one protocol"),
    ],
)
def test_bad_studies(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run(tmp_path, "benchmarks=['passkey@words=64']\nserver='hf'\nlimit=2\n" + text if "=3" not in text else text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[systems.a]\nserver='nosuch'", "system a"),
        ("[systems.a]\nout='elsewhere'", "this one's folder is"),
        ("budget='20s'\n[systems.a]\n", "system a: budget"),
        ("[systems.a]\nuntil='ci=5'", "system a: until"),
    ],
)
def test_a_bad_system_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(tmp_path, "benchmarks=['passkey@words=64']\nserver='double'\nlimit=2\n" + text)
    assert told in str(caught.value)


def test_the_joined_folder_says_that_it_is_none_to_continue(tmp_path: Path, loom: Any) -> None:
    folder = run(tmp_path).folder.path
    for command in (("run",), ("score",), ("plan",), ("reproduce",), ("report", "--bundle", str(tmp_path / "b.tgz"))):
        told = loom(*command, str(folder), code=1).err
        assert "joins the systems of a study" in told and str(folder / "wrong") in told, command
    assert not (tmp_path / "b.tgz").exists()


def test_a_study_is_ranked_by_its_systems(tmp_path: Path, loom: Any) -> None:
    folder = run(tmp_path).folder.path
    (ranking,) = json.loads(loom("leaderboard", str(folder), "--format", "json").out)["rankings"]
    assert sorted((row["run"], row["arm"]) for row in ranking["rows"]) == [
        ("right", "dense"),
        ("right", "truncate:budget=0.5"),
        ("wrong", "dense"),
    ]


def test_a_study_is_planned_by_system(tmp_path: Path, loom: Any) -> None:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    shown = loom("plan", str(path)).out
    assert "system right" in shown and "system wrong" in shown
    plans = json.loads(loom("plan", str(path), "--format", "json").out)["systems"]
    assert {name: plan["n_jobs"] for name, plan in plans.items()} == {"right": 12, "wrong": 6}


def test_the_guides_example_is_a_study(tmp_path: Path) -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "studies.md").read_text("utf-8")
    path = tmp_path / "study.toml"
    path.write_text(guide.split("```toml\n", 1)[1].split("```", 1)[0], "utf-8")
    study = read_study(path, {})
    assert study is not None and list(study.systems) == ["hf", "vllm", "api"]
    assert study.systems["vllm"].python == "vllm-env/bin/python" and study.systems["api"].subset == 60
