"""Runs with worker processes: retries, deaths, interrupts, two writers; nothing lost and nothing twice."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest


def whole(loom: Any, n: int) -> None:
    """Every planned answer is recorded once without an error."""
    good = Counter(r["key"] for r in loom.records() if r["finish"] != "error")
    assert len(good) == n and set(good.values()) == {1}
    assert len(loom.scores("fable_exact@1")) == n


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_run_ends_with_everything_recorded_and_scored(loom: Any) -> None:
    done = loom("run", "fable", "--model", "toy", "--accel", "fable_head:keep=0.5", "--workers", "2")
    folder = loom.folder()
    assert folder.name.startswith("fable-toy-")
    whole(loom, 2 * 12 * 2)
    assert {score["value"] for score in loom.scores("fable_exact@1")} == {1.0}
    for name in ("manifest.json", "plan.json", "samples.jsonl", "jobs.jsonl.gz", "responses.jsonl", "contexts", "logs"):
        assert (folder / name).exists(), name
    assert str(folder.relative_to(loom.cwd)) in done.out
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert sorted(worker["number"] for worker in manifest["workers"]) == [1, 2] and manifest["events"] == []
    assert manifest["config"]["origins"]["accel"] == "command line"


def test_the_same_command_again_asks_nothing(loom: Any) -> None:
    command = ("run", "fable:tell", "--model", "toy")
    loom(*command)
    before = (loom.folder() / "responses.jsonl").read_bytes()
    again, by_folder = loom(*command), loom("run", loom.folder())
    assert (loom.folder() / "responses.jsonl").read_bytes() == before
    for done in (again, by_folder):
        assert "planned" not in done.err and "incomplete" not in done.out


def test_the_same_question_asked_again_is_another_answer(loom: Any) -> None:
    loom("run", "fable@n=4:tell", "--model", "toy", "--repeats", "3")
    whole(loom, 12)
    assert Counter(r["repeat"] for r in loom.records()) == {0: 4, 1: 4, 2: 4}


def test_errors_are_recorded_and_only_they_are_asked_again(loom: Any) -> None:
    command = ("run", "fable@n=20:tell", "--model", "toy", "--server-option", "errors=0.5")
    done = loom(*command, code=3)
    first = loom.records()
    failed = {r["job"] for r in first if r["finish"] == "error"}
    assert len(first) == 20 and 1 < len(failed) < 19
    assert f"{len(failed)} of 20 answers are missing ({len(failed)} failed)" in done.out
    assert f"continue: loom run runs/{loom.folder().name}" in done.out
    assert len(loom.scores("fable_exact@1")) == 20 - len(failed)
    asked, n = failed, len(first)
    for _ in range(40):
        done = loom("run", loom.folder(), code=None)
        new = loom.records()[n:]
        assert {r["job"] for r in new} == asked
        asked, n = {r["job"] for r in new if r["finish"] == "error"}, n + len(new)
        assert done.code == (3 if asked else 0)
        if not asked:
            break
    whole(loom, 20)


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost_or_twice(loom: Any) -> None:
    command = ("run", "fable@n=30,turns=2:tell", "--model", "toy", "--server-option", "die_after=7", "--workers", "2")
    done = loom(*command)
    whole_calls = Counter(r["key"] for r in loom.records())
    assert len(whole_calls) == 60 and set(whole_calls.values()) == {1}
    assert "died: killed by signal 9" in done.err
    manifest = json.loads((loom.folder() / "manifest.json").read_text("utf-8"))
    assert len(manifest["workers"]) >= 8 and any("killed by signal 9" in event for event in manifest["events"])
    assert loom.processes() == []


def test_a_deadly_question_ends_as_one_recorded_error(loom: Any) -> None:
    done = loom("run", "fable@n=10,deadly=4:tell", "--model", "toy", code=3)
    records = loom.records()
    errors = [r for r in records if r["finish"] == "error"]
    assert len(records) == 10 and [r["sample"] for r in errors] == ["q4"]
    assert "killed by signal 9" in errors[0]["error"]
    assert "1 of 10 answers are missing (1 failed)" in done.out
    assert len(loom.scores("fable_exact@1")) == 9


def test_a_benchmark_that_raises_costs_one_question(loom: Any) -> None:
    loom("run", "fable@n=10,raising=4:tell", "--model", "toy", code=3)
    errors = [r for r in loom.records() if r["finish"] == "error"]
    assert [(r["sample"], r["error"]) for r in errors] == [("q4", "ValueError: this fable has no moral")]
    assert len(loom.scores("fable_exact@1")) == 9


@pytest.mark.parametrize(("workers", "sign"), [(1, signal.SIGINT), (3, signal.SIGTERM)])
def test_interrupt_finishes_the_record_in_hand_and_continuing_completes(loom: Any, workers: int, sign: int) -> None:
    """Ctrl-C, and what a scheduler sends."""
    command = ("run", "fable@n=60:tell", "--model", "toy", "--server-option", "seconds=0.2", "--workers", workers)
    child = loom.start(*command)
    wait_for(lambda: list(loom.cwd.glob("runs/*")) and len(loom.records()) >= 4)
    os.kill(child.pid, sign)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 3 and "Traceback" not in out + err
    assert "answers are missing (stopped); what was answered is stored" in out
    assert f"continue: loom run runs/{loom.folder().name}" in out
    n = len(loom.records())
    assert 4 <= n < 60 and all(r["finish"] == "stop" for r in loom.records())
    assert loom.processes() == []
    loom("run", loom.folder(), "--server-option", "seconds=0", "--workers", 2)
    whole(loom, 60)


def test_interrupt_before_the_first_answer_leaves_a_run_that_can_be_continued(loom: Any) -> None:
    child = loom.start("run", "fable@n=5:tell", "--model", "toy", "--server-option", "seconds=30")
    wait_for(lambda: list(loom.cwd.glob("runs/*/logs/worker-1.log")))
    os.kill(child.pid, signal.SIGINT)
    time.sleep(0.2)
    os.kill(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 3 and "Traceback" not in out + err
    assert loom.processes() == []
    loom("run", loom.folder(), "--server-option", "seconds=0")
    whole(loom, 5)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_its_parent(loom: Any, sign: int) -> None:
    """However the parent ends: no worker goes on, and none of what a worker started."""
    child = loom.start("run", "fable@n=5:tell", "--model", "toy", "--server-option", "seconds=30", "--workers", 2)
    wait_for(lambda: len(list(loom.cwd.glob("runs/*/logs/worker-*.log"))) == 2)
    os.kill(child.pid, sign)
    if sign == signal.SIGTERM:
        time.sleep(0.2)
        os.kill(child.pid, sign)  # as with Ctrl-C, the second one does not wait for the answer in hand
    child.communicate(timeout=30)
    wait_for(lambda: loom.processes() == [])


def test_two_processes_on_one_run_are_one_clear_error(loom: Any) -> None:
    command = ("run", "fable@n=40:tell", "--model", "toy", "--out", "one", "--server-option", "seconds=1")
    child = loom.start(*command)
    wait_for(lambda: len(loom.records(loom.cwd / "one")) >= 2)
    done = loom(*command, code=1)
    assert "another loom is writing to this run" in done.err
    assert f"process {child.pid} holds its lock" in done.err and "--out" in done.err
    for other in (("score", "one"), ("run", "./one")):
        assert "another loom is writing" in loom(*other, code=1).err
    os.kill(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 3, err
    loom("run", "./one", "--server-option", "seconds=0")
    assert len(loom.records(loom.cwd / "one")) == 40


def test_torn_and_corrupt_lines_are_named_and_asked_again(loom: Any) -> None:
    loom("run", "fable@n=10,turns=2:tell", "--model", "toy")
    path = loom.folder() / "responses.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    before = {r["key"]: r["text"] for r in loom.records()}
    path.write_bytes(b"".join([*lines[:3], b"\x00\xff garbage\n", *lines[4:-1], lines[-1][:50]]))
    done = loom("run", loom.folder())
    assert "1 unreadable line(s) passed over (line 4)" in done.err
    assert "a torn last line of 50 bytes was set aside" in done.err
    good = [json.loads(line) for line in path.read_bytes().splitlines() if line.startswith(b"{")]
    assert {r["key"]: r["text"] for r in good} == before and len(good) == len(before) == 20
    assert (loom.folder() / "responses.torn").read_bytes() == lines[-1][:50] + b"\n"


def test_lost_contexts_and_jobs_are_one_clear_error_and_preparing_again_keeps_the_answers(loom: Any) -> None:
    loom("run", "fable@n=6:tell", "--model", "toy", "--server-option", "errors=1", code=3)
    folder = loom.folder()
    for path in (folder / "contexts").iterdir():
        path.write_bytes(b"")
    done = loom("run", folder, code=1)
    assert "a stored context cannot be read" in done.err and "delete plan.json" in done.err
    (folder / "jobs.jsonl.gz").write_bytes(b"")
    assert "the planned jobs cannot be read" in loom("run", folder, code=1).err
    n = len(loom.records())
    (folder / "plan.json").unlink()
    loom("run", folder, code=3)
    assert len(loom.records()) == 2 * n


def test_nothing_is_started_where_nothing_is_left(loom: Any) -> None:
    loom("run", "fable@n=3:tell", "--model", "toy")
    logs = {path: path.stat().st_mtime_ns for path in (loom.folder() / "logs").iterdir()}
    loom("run", loom.folder(), "--workers", "4")
    assert {path: path.stat().st_mtime_ns for path in (loom.folder() / "logs").iterdir()} == logs


def test_a_server_that_cannot_be_opened_is_the_runs_error(loom: Any, tmp_path: Path) -> None:
    """A plugin's bug while opening a session ends the run with its message, at once."""
    package = tmp_path / "bad"
    package.mkdir()
    (package / "loom_server_bad.py").write_text(
        "from loom_core.contract.hookspecs import hookimpl\n"
        "from loom_core.contract.specs import ServerSpec\n"
        "from loom_core.doubles.server import DoubleServer\n"
        "from loom_core.doubles.plugin import DoubleOptions, ToyModelOptions\n"
        "class Bad(DoubleServer):\n"
        "    def open(self, model, options):\n"
        "        raise OSError('no such device')\n"
        "@hookimpl\n"
        "def loom_servers():\n"
        "    return [ServerSpec(name='bad', version='1', summary='', factory='loom_server_bad:Bad',\n"
        "        capabilities=frozenset({'token_ids'}), options=DoubleOptions, model_options=ToyModelOptions)]\n"
    )
    info = package / "loom_server_bad-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loom-server-bad\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[loom]\nbad = loom_server_bad\n")
    env = {"PYTHONPATH": os.pathsep.join([str(package), os.environ["PYTHONPATH"]])}
    done = loom("run", "fable:tell", "--model", "toy", "--server", "bad", "--workers", "2", env=env, code=1)
    assert "a worker failed" in done.err and "OSError: no such device" in done.err and "logs" in done.err
    assert loom.processes() == []


@pytest.mark.parametrize("left", [0, 3])
def test_jobs_that_are_gone_from_the_plan_are_missed(loom: Any, left: int) -> None:
    loom("run", "fable@n=4:tell", "--model", "toy", "--out", "made", "-q")
    file = loom.cwd / "made" / "jobs.jsonl.gz"
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    file.write_bytes(gzip.compress(b"".join(lines[:left])))
    done = loom("run", "made", code=1)
    assert f"it holds {left} of the 4 jobs" in done.err and "delete plan.json" in done.err
