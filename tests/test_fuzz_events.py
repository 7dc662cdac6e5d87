"""What a worker may say over its pipe, mutated: an event is refused or obeyed, and nothing foreign is recorded."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzzing import ODD, SEED, WorkerInThread, ask, mutated, quick

from loom_core.run import executors, process
from loom_core.run.events import misfit
from loom_core.run.process import WorkerProcess
from loom_core.run.store import Damage, Responses, RunFolder, read_lines

N_EVENTS, N_RUNS = 2000, 60
LINE = ("run", "passkey@words=8,depths=2,repeats=2", "--model", "toy", "--accel", "truncate:budget=256", "-q")
DEATHS = 60
"""Workers of one run that misbehave; the next ones are sound, so that a run could end well."""


class Meddler(WorkerInThread):
    """A worker some of whose events are changed, taken out, doubled or made up."""

    random = random.Random()
    seen: list[dict[str, Any]]
    meddled = 0

    def _said(self, event: dict[str, Any]) -> None:
        for one in self._changed(json.loads(json.dumps(event))):
            if not isinstance(one, dict) or not isinstance(one.get("op"), str):
                one = {"op": "gone"}  # the reader of the pipe ends there
            super()._said(one)

    def _changed(self, event: dict[str, Any]) -> Iterator[Any]:
        how = self.random.random()
        if how > 0.2 or Meddler.meddled > DEATHS:
            yield event
            return
        Meddler.meddled += 1
        if how < 0.12:
            yield mutated(event, self.random)
        elif how < 0.14:
            yield from (event, event)
        elif how < 0.16:
            yield {"op": self.random.choice(("ready", "done", "response", "failed", "beat", "open", "")), "bundle": 1}
            yield event
        elif how < 0.18:
            yield {**event, "bundle": 10**6}
        else:
            yield event
            yield {"op": "failed", "error": {"what": self.random.choice(("x", "\x1b[31m", "\ud800")), "type": "Nosuch"}}


def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events of a sound run."""
    events: list[dict[str, Any]] = []

    class Heard(WorkerInThread):
        def _said(self, event: dict[str, Any]) -> None:
            events.append(json.loads(json.dumps(event)))
            super()._said(event)

    quick(monkeypatch)
    monkeypatch.setattr(executors, "WorkerProcess", Heard)
    with chdir(tmp_path):
        code, said = ask(*LINE, "--out", "sound")
    assert code == 0, said
    return [*events, {"op": "failed", "error": {"what": "x", "type": "ModelError"}, "permanent": True}, {"op": "beat"}]


def test_an_event_is_right_or_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = recorded(tmp_path, monkeypatch)
    assert all(misfit(event, event["op"] != "ready") == "" for event in events)
    random_, refused = random.Random(f"{SEED} events"), 0
    for _ in range(N_EVENTS):
        event = mutated(random_.choice(events), random_)
        try:
            why = misfit(event, random_.random() < 0.5)
        except Exception as error:
            raise AssertionError(f"{event!r} (seed {SEED})") from error
        refused += bool(why)
    assert refused > N_EVENTS // 4
    assert all(misfit(odd, True) for odd in ODD)


def test_a_run_with_meddling_workers_records_answers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(executors, "WorkerProcess", Meddler)
    Meddler.random = random.Random(f"{SEED} meddling")
    ends = []
    with chdir(tmp_path):
        for number in range(N_RUNS):
            Meddler.meddled = 0
            try:
                code, said = ask(*LINE, "--out", f"{number}")
            except Exception as error:
                raise AssertionError(f"run {number} (seed {SEED}): {type(error).__name__}: {error}") from error
            assert said.strip() or code, f"run {number} (seed {SEED})"
            sound(Path(f"{number}"), code)
            ends.append(code)
    assert 0 in ends


def sound(path: Path, code: int) -> None:
    """Whatever a folder holds is of its own questions, and it is whole where the run said so."""
    folder, damage = RunFolder(path), Damage()
    if not folder.responses.exists():
        assert code != 0
        return
    jobs = {job.key: job for job in folder.read_jobs()}
    for _, record in read_lines(folder.responses, damage):
        job = jobs[record["job"]]
        assert (record["task"], record["sample"], record["arm"]) == (job.task, job.sample, job.arm)
    assert not str(damage), f"{path} (seed {SEED}): {damage}"
    if code == 0:
        responses = Responses(folder.responses)
        assert all(responses.ended(key) for key in jobs)


LINES: tuple[Callable[[random.Random], bytes], ...] = (
    lambda r: b"\n",
    lambda r: b"null\n",
    lambda r: b"\xff\xfe\x00\n",
    lambda r: b"[" * 100_000 + b"\n",
    lambda r: b'{"op": 5}\n',
    lambda r: b'{"op": "beat"}\n',
    lambda r: json.dumps({"op": "beat", "x": "y" * 10**6}).encode() + b"\n",
    lambda r: b'{"op": "beat"',
    lambda r: b'{"op": "bea\xc3t"}\n',
    lambda r: b"1" * 5000 + b"\n",
    lambda r: r.randbytes(50) + b"\n",
)


def test_lines_that_are_no_events_end_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of the pipe itself: it gives what can be an event, and then that the worker is gone."""
    random_ = random.Random(f"{SEED} lines")
    for number in range(200):
        said = b"".join(random_.choice(LINES)(random_) for _ in range(3))
        path = tmp_path / f"{number}"
        path.write_bytes(said)
        worker = object.__new__(WorkerProcess)
        worker.last_sign = 0.0
        events: Any = process.queue.SimpleQueue()
        with path.open(encoding="utf-8", errors="replace") as pipe:
            worker._child = type("Child", (), {"stdout": pipe})()
            try:
                worker._read(events)
            except Exception as error:
                raise AssertionError(f"{said[:300]!r} (seed {SEED})") from error
        found = [events.get_nowait()[1] for _ in range(events.qsize())]
        assert found[-1] == {"op": "gone"} and all(isinstance(event["op"], str) for event in found)
