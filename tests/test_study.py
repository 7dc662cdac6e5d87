"""Several systems in one study: a run folder each, one report with every arm, differences paired by question."""

from __future__ import annotations

from pathlib import Path

import pytest

from loom_core.cli.progress import Quiet
from loom_core.errors import RunError, UsageError
from loom_core.plugins import installed
from loom_core.store import read_json
from loom_core.study import Joined, read_study, run_study

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
    assert "wrong/dense" in (tmp_path / "out" / "report.html").read_text()
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
        ("systems = 3", "no table"),
        ("[systems.'a/b']\nserver='double'", "plain name"),
        ("[systems.a]\nserverr='double'", "unknown setting"),
        ("[systems.a]\nprotocol='query-aware'\n[systems.b]\nprotocol='context-only'", "one protocol"),
    ],
)
def test_bad_studies(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run(tmp_path, "benchmarks=['passkey@words=64']\nserver='hf'\nlimit=2\n" + text if "=3" not in text else text)
