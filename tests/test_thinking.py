"""Thinking models: a scripted reply is split, counted and scored on the rest; what does not end is an empty answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from loom_core.api import Generation, Response, Timing, UsageError
from loom_core.prompting.thinking import UNFINISHED, Thinking, asked, declared
from loom_core.run.config import RunConfig

THINKING = Thinking("<think>", "</think>", 100)
LIMITS = Generation(max_tokens=20)


def reply(text: str, finish: Any = "stop", reasoning: str | None = None) -> Response:
    timing = Timing(queued=0.0, started=0.0, first_token=None, ended=0.0)
    return Response(key="k", text=text, finish=finish, n_in=1, n_out=1, timing=timing, reasoning=reasoning)


@pytest.mark.parametrize(
    ("given_", "text", "reasoning", "unfinished"),
    [
        (reply("<think>first\nthen</think>\n\n42"), "42", "first\nthen", False),
        (reply("opened by the template</think>42"), "42", "opened by the template", False),
        (reply("42"), "42", None, False),
        (reply("<think>on and on", "length"), "", "on and on", True),
        (reply("on and on", "length"), "", "on and on", True),
        (reply("<think>on and on"), "", "on and on", True),
        (reply("<think>a</think>b</think>c"), "b</think>c", "a", False),
        (reply("<think>a</think>42", "length"), "42", "a", False),
        (reply("42", reasoning="by the server"), "42", "by the server", False),
        (reply("", "length", "by the server"), "", "by the server", True),
    ],
)
def test_a_reply_is_split(given_: Response, text: str, reasoning: str | None, unfinished: bool) -> None:
    found = THINKING.split(given_, LIMITS, len)
    assert (found.text, found.reasoning) == (text, reasoning)
    assert found.n_reasoning == (None if reasoning is None else len(reasoning))
    assert (UNFINISHED in found.notes) == unfinished


def test_stop_strings_are_of_the_answer_alone() -> None:
    limits = Generation(max_tokens=20, stop=("\n",))
    assert asked(limits).stop == () and THINKING.limits(limits).max_tokens == 120
    found = THINKING.split(reply("<think>a\nb</think>\n42\nand more"), THINKING.limits(limits), None)
    assert (found.text, found.reasoning, found.n_reasoning) == ("42", "a\nb", None)


@given(thought=st.text(max_size=40), rest=st.text(max_size=40))
def test_nothing_is_lost(thought: str, rest: str) -> None:
    found = THINKING.split(reply(f"<think>{thought}</think>{rest}"), LIMITS, len)
    if "</think>" not in thought:
        assert found.text == rest.lstrip() and found.reasoning == thought.strip()


@pytest.mark.parametrize("text", ["<think>", "a,b,c", ",", "<think>,"])
def test_bad_marks(text: str) -> None:
    with pytest.raises(UsageError, match="thinking"):
        RunConfig().merged({"thinking": text}, "test")


def test_the_settings() -> None:
    config = RunConfig().merged({"thinking": "<think>, </think>", "thinking_budget": "2k"}, "test")
    assert declared(config.thinking, config.thinking_budget) == Thinking("<think>", "</think>", 2048)
    assert declared(None, 5) is None and config.identity["thinking"] == "<think>,</think>"


def test_a_scripted_reply_is_split_counted_and_scored_on_the_rest(loom: Any, tmp_path: Path) -> None:
    ask = ("run", "fable@n=2", "--model", "toy")
    loom(*ask, "--out", tmp_path / "plain")
    right = [record["text"] for record in records(tmp_path / "plain")]
    script = tmp_path / "script.jsonl"
    rows = [{"if": "number 0?", "say": f"<think>let me\nsee</think>\n\n{right[0]}"}, {"say": "<think>and so on"}]
    script.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    thinking = ("--thinking", "<think>,</think>", "--thinking-budget", "64")
    said = loom(*ask, "--server-option", f"script={script}", *thinking, "--out", tmp_path / "thinks").out
    found = {record["text"]: record for record in records(tmp_path / "thinks")}
    assert found[right[0]]["reasoning"] == "let me\nsee" and found[right[0]]["n_reasoning"] == len("let me\nsee")
    assert found[""]["reasoning"] == "and so on" and found[""]["notes"] == [UNFINISHED]
    report = json.loads((tmp_path / "thinks" / "report.json").read_text("utf-8"))
    every = records(tmp_path / "thinks")
    n_empty = sum(record["text"] == "" for record in every)
    assert report["state"]["n_unfinished"] == n_empty and 0 < n_empty < report["state"]["n_answered"] == len(every)
    assert report["state"]["tokens_thinking"] == sum(record["n_reasoning"] for record in every) > 0
    assert any(f"{n_empty} of {len(every)} answers are empty" in note for note in report["notes"])
    told = f"{n_empty} of {len(every)} answers are empty ({n_empty} of them have reasoning: see --thinking, "
    assert f"\n{told}--thinking-budget)\n" in said
    assert [b["kind"] for b in report["banners"] if b["text"].startswith(told)] == ["warning"]
    assert report["state"]["n_empty"] == sum(row["n_empty"] for row in report["totals"]) == n_empty
    scores = loom.scores("fable_exact@1", tmp_path / "thinks")
    values = {score["key"]: score["value"] for score in scores}
    answered = {record["job"]: record["text"] for record in every}
    assert all(values[job] == 0.0 for job, text in answered.items() if not text)
    assert values[found[right[0]]["job"]] == 1.0
    plain = json.loads((tmp_path / "plain" / "plan.json").read_text("utf-8"))
    wider = json.loads((tmp_path / "thinks" / "plan.json").read_text("utf-8"))
    limits = [made["tasks"][0]["generation"]["max_tokens"] for made in (plain, wider)]
    assert limits[1] == limits[0] + 64


def records(folder: Path) -> list[dict[str, Any]]:
    """The recorded answers of a run."""
    lines = [line for path in sorted(folder.glob("responses*.jsonl")) for line in path.read_text("ascii").splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda record: str(record["sample"]))
