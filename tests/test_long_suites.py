"""LongBench, LongBench v2 and L-Eval from the command line to the report, on the real extracts, answered by doubles."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(os.environ.get("LOOM_SHARED") or Path(__file__).resolve().parents[2] / "shared")
MIRROR = SHARED / "data"
pytestmark = pytest.mark.skipif(not (MIRROR / "leval").is_dir(), reason=f"no extracts at {MIRROR}")
ASKED = ("longbench", "longbench-v2", "leval:sci_fi,tpo,news_summ,codeU", "--limit", "3", "--model", "toy")


def read(loom: Any, name: str) -> Any:
    return json.loads((loom.folder() / name).read_text("utf-8"))


@pytest.mark.parametrize(("answers", "value"), [("oracle", 1.0), ("null", 0.0)])
def test_oracle_and_null_doubles_give_the_ends_of_every_scale(loom: Any, answers: str, value: float) -> None:
    done = loom("run", *ASKED, "--data-dir", MIRROR, "--server-option", f"answers={answers}")
    plan, official = read(loom, "plan.json"), read(loom, "official.json")
    tasks = {task["name"]: task for task in plan["tasks"]}
    asked = [name for name, task in tasks.items() if not task["unavailable"]]
    assert len(asked) == 6 and len(tasks) == 21 + 1 + 4
    assert {tasks[name]["n_samples"] for name in asked} == {3}
    assert {name for name in asked if tasks[name]["extract"]} == {name for name in asked if name.startswith("longb")}
    assert "longbench-v2:direct is unavailable here" in " ".join(done.out.split())
    for lines in (official["longbench"]["dense"], official["leval"]["dense"]):
        assert lines and all(line["value"] == pytest.approx(100 * value, abs=1e-5) for line in lines)
    calls = [record["step"] for record in loom.records() if record["task"] == "leval:sci_fi"]
    assert sorted(calls) == [0, 0, 0, 1, 1, 1]
    assert (loom.folder() / "report.html").is_file()


def test_readers_are_told_of_the_wording_before_any_number(loom: Any) -> None:
    done = loom("run", "leval:tpo", "--limit", "2", "--model", "toy", "--data-dir", MIRROR)
    shown = " ".join(done.out.split())
    assert "warning: leval asks in loom's own wording, not the authors'" in shown
    assert shown.index("loom's own wording") < shown.index("leval:tpo ·")


def test_a_document_too_long_for_the_window_is_cut_as_its_authors_do_and_counted(loom: Any) -> None:
    command = ("run", "leval:tpo", "--limit", "2", "--model", "toy", "--model-option", "window=6000")
    loom(*command, "--data-dir", MIRROR)
    records = loom.records()
    assert [record["cut"] for record in records] == [["context"]] * 2
    assert all(record["n_dropped"] > 0 and record["n_in"] <= 6000 - 512 for record in records)
    assert read(loom, "report.json")["state"]["n_truncated"] == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [("leval:sci_fy", "sci_fi"), ("longbench:hotpot", "hotpotqa"), ("longbench-v2@mode=thinking", "cot")],
)
def test_an_unknown_task_or_mode_is_one_clear_message(loom: Any, name: str, words: str) -> None:
    done = loom("plan", name, "--model", "toy", "--data-dir", MIRROR, code=2)
    assert words in done.out + done.err


def test_nothing_available_is_one_clear_message(loom: Any) -> None:
    done = loom("run", "longbench-v2", "--model", "toy", "--data-dir", MIRROR, code=1)
    assert "no task is available here" in done.err and "loom data fetch" in done.err
