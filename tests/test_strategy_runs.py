"""Strategies in whole runs: every one once with a double, their calls counted, killed between calls, stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loom_accel_self_route.strategy import REQUEST

from loom_core.api import installed


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A double that declines excerpts and answers on the whole."""
    path = tmp_path / "script.jsonl"
    rows = [{"if": REQUEST.strip(), "say": "unanswerable"}, {"say": "the answer"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


RUN = ("run", "passkey@words=200,depths=2,repeats=1", "--model", "toy", "--quiet", "--accel", "self-route")


def of_arm(loom: Any, name: str) -> list[dict[str, Any]]:
    """The records of the run `name`'s strategy arm, by job and step."""
    rows = [r for r in loom.records(loom.cwd / name) if r["arm"] != "dense"]
    return sorted(rows, key=lambda r: (r["job"], r["step"]))


def test_a_double_that_declines_makes_exactly_two_calls(loom: Any, script: Path) -> None:
    loom(*RUN, "--server-option", f"script={script}", "--out", "run")
    records = of_arm(loom, "run")
    assert [(r["step"], r["turn"], r["last"], r["text"]) for r in records] == [
        (0, 0, False, "unanswerable"),
        (1, 0, True, "the answer"),
    ] * 2
    assert all((r["rewriting"] is not None) == (r["step"] == 0) for r in records)
    report = json.loads((loom.cwd / "run" / "report.json").read_text("utf-8"))
    costs = {row["arm"]: row["cost"] for row in report["totals"]}
    assert (costs["dense"]["calls"], costs["dense"]["several_calls"]) == (1, 0)
    assert (costs["bm25+self-route"]["calls"], costs["bm25+self-route"]["several_calls"]) == (2, 1)
    assert costs["bm25+self-route"]["tokens_in"] > costs["dense"]["tokens_in"]


def test_a_double_that_answers_makes_exactly_one_call(loom: Any) -> None:
    loom(*RUN, "--out", "run")
    assert [(r["step"], r["last"]) for r in of_arm(loom, "run")] == [(0, True)] * 2
    report = json.loads((loom.cwd / "run" / "report.json").read_text("utf-8"))
    assert {row["cost"]["several_calls"] for row in report["totals"]} == {0}


def test_a_kill_between_the_two_calls_loses_neither(loom: Any, script: Path) -> None:
    """The worker dies after every answer: what was answered is replayed, never asked again."""
    loom(*RUN, "--server-option", f"script={script}", "--out", "calm")
    killed = ("--server-option", f"script={script}", "--server-option", "die_after=1", "--out", "killed")
    for _ in range(12):
        if loom(*RUN, *killed, code=None).code == 0:
            break
    calm = of_arm(loom, "calm")
    found = [r for r in of_arm(loom, "killed") if r["finish"] != "error"]  # of jobs whose workers all died, once
    kept = ("job", "step", "key", "turn", "last", "text", "answer", "rewriting", "prompt_digest")
    assert [[r[name] for name in kept] for r in found] == [[r[name] for name in kept] for r in calm]


def test_every_strategy_runs_and_its_calls_are_recorded(loom: Any) -> None:
    """All strategies that are installed, in one command; those that read in windows make one call more than windows."""
    options = {
        "self-route": "",
        "chain-of-agents": ":window=600,summary=50",
        "streaming-rag": ":window=600,passage=150,buffer=300",
    }
    named = {f.spec.name for f in installed().augmentations if f.spec.kind == "strategy" and "loom" in f.distribution}
    assert {name for name in named if not name.startswith("fable")} == set(options)
    arms = [argument for name, more in options.items() for argument in ("--accel", name + more)]
    loom("run", "passkey@words=200,depths=2,repeats=1", "--model", "toy", "--quiet", *arms, "--out", "run")
    records = loom.records(loom.cwd / "run")
    assert not [r["error"] for r in records if r["error"]]
    calls: dict[str, set[int]] = {}
    for record in records:
        calls.setdefault(record["arm"].partition(":")[0], set()).add(record["step"])
    assert calls["dense"] == calls["bm25+self-route"] == {0}
    for name in ("chain-of-agents", "streaming-rag"):
        assert len(calls[name]) >= 3 and calls[name] == set(range(len(calls[name])))
    report = json.loads((loom.cwd / "run" / "report.json").read_text("utf-8"))
    assert {row["arm"] for row in report["totals"] if row["cost"]["several_calls"]} == {
        name + options[name] for name in ("chain-of-agents", "streaming-rag")
    }


def test_too_many_windows_are_a_recorded_error_that_says_so(loom: Any) -> None:
    run = ("run", "passkey@words=1000,depths=1,repeats=1", "--model", "toy", "--quiet")
    loom(*run, "--accel", "chain-of-agents:window=16", "--out", "run", code=None)
    (record,) = of_arm(loom, "run")
    assert record["finish"] == "error" and "a job may make 64" in record["error"]


def test_the_plan_warns_of_a_strategy_that_stands_on_retrieval(loom: Any) -> None:
    tasks = "ruler@variant=loom:loom_cwe"
    done = loom("plan", tasks, "--model", "toy", "--accel", "self-route", "--lengths", "16k", "--limit", "1")
    assert "bm25+self-route retrieves parts of the context, which makes no sense for" in " ".join(done.out.split())
