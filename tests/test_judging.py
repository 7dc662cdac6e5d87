"""Metrics that ask a model: recorded, replayed, never twice, never a sample lost; costs apart from the model's."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

TELL = ("run", "fable@n=6,per_context=3,mood=judged:tell", "--model", "toy")
FABLES = 2
"""The six questions are over two fables: a retelling is asked once for each."""


def script(folder: Path, *rows: dict[str, str]) -> tuple[str, ...]:
    """A scripted judge that retells nothing and says what the rows say."""
    path = folder / "script.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ({"if": "Retell:", "say": "a tale"}, *rows)), "utf-8")
    return ("--judge", "double:toy", "--judge-option", f"script={path}")


def judgements(folder: Path) -> list[dict[str, Any]]:
    """The recorded calls of the judge."""
    path = folder / "judgements.jsonl"
    return [json.loads(line) for line in path.read_text("ascii").splitlines()] if path.exists() else []


def values(loom: Any) -> list[float | None]:
    """The judged values, in the order of the plan."""
    return [score["value"] for score in loom.scores("fable_judged@1")]


def test_a_judge_scores_and_its_calls_are_recorded_and_shared(loom: Any, tmp_path: Path) -> None:
    loom(*TELL, *script(tmp_path, {"if": "of q1.", "say": "5"}, {"say": "10"}))
    assert values(loom) == [1.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    calls = judgements(loom.folder())
    assert len(calls) == FABLES + 6 and {call["phase"] for call in calls} == {"judge"}
    assert {call["metric"] for call in calls} == {"fable_judged"}
    assert {score["detail"]["judge"] for score in loom.scores("fable_judged@1")} == {"double:toy"}
    report = json.loads((loom.folder() / "report.json").read_text("utf-8"))
    judge = report["judge"]
    assert judge["calls"] == judge["asked"] == 8 and judge["failed"] == 0
    assert judge["n_in"] == sum(call["n_in"] for call in calls) > 0
    assert len(loom.records()) == 6, "the evaluated model's answers hold no call of the judge"
    assert any("Judged by double:toy: 8 calls" in banner["text"] for banner in report["banners"])


def test_scoring_again_asks_nothing_and_needs_no_judge(loom: Any, tmp_path: Path) -> None:
    asked = script(tmp_path, {"say": "10"})
    loom(*TELL, *asked)
    before, path = judgements(loom.folder()), loom.folder() / "scores-fable_judged@1.jsonl"
    scores = path.read_bytes()
    (tmp_path / "script.jsonl").write_text('{"say": "1"}\n', "utf-8")
    loom("score", loom.folder(), *asked)
    assert judgements(loom.folder()) == before and path.read_bytes() == scores
    manifest = loom.folder() / "manifest.json"
    record = json.loads(manifest.read_text("utf-8"))
    record["config"] |= {"judge": None, "judge_options": {}}
    manifest.write_text(json.dumps(record), "utf-8")
    loom("score", loom.folder())
    assert judgements(loom.folder()) == before and path.read_bytes() == scores


def test_without_a_judge_values_are_missing_with_the_reason(loom: Any, tmp_path: Path) -> None:
    done = loom(*TELL)
    scores = loom.scores("fable_judged@1")
    assert [score["value"] for score in scores] == [None] * 6
    assert all("--judge SERVER:MODEL" in score["detail"]["error"] for score in scores)
    assert [score["value"] for score in loom.scores("fable_exact@1")] == [1.0] * 6
    report = json.loads((loom.folder() / "report.json").read_text("utf-8"))
    assert (
        report["totals"][0]["scores"][0] | {"score": None, "n": 0, "n_unscored": 6} == report["totals"][0]["scores"][0]
    )
    assert "fable_judged: 6 answers have no value: 6 × needs a judge" in " ".join(done.out.split())
    loom("score", loom.folder(), *script(tmp_path, {"say": "10"}))
    assert values(loom) == [1.0] * 6


def test_rubbish_refusal_and_errors_cost_the_value_and_are_counted(loom: Any, tmp_path: Path) -> None:
    odd = {"if": "of q0.", "say": "I cannot judge this"}, {"if": "of q1.", "fail": "timed out after 30 s"}
    asked = script(tmp_path, *odd, {"say": "10"})
    loom(*TELL, *asked)
    assert values(loom) == [None, None, 1.0, 1.0, 1.0, 1.0]
    reasons = [score["detail"].get("error", "") for score in loom.scores("fable_judged@1")]
    assert reasons[0].startswith("ValueError: invalid literal") and "timed out after 30 s" in reasons[1]
    report = json.loads((loom.folder() / "report.json").read_text("utf-8"))
    score = report["totals"][0]["scores"][0]
    assert (score["n"], score["n_unscored"]) == (4, 2)
    assert report["judge"]["metrics"]["fable_judged@1"]["n_without_value"] == 2
    script(tmp_path, {"say": "10"})
    n = len(judgements(loom.folder()))
    loom(*TELL, *asked)
    assert values(loom) == [None, *[1.0] * 5], "an error is asked again, rubbish is an answer"
    assert len(judgements(loom.folder())) == n + 1


def test_killed_between_calls_nothing_is_asked_twice(loom: Any, tmp_path: Path) -> None:
    asked = script(tmp_path, {"say": "10"})
    for _ in range(20):
        done = loom(*TELL, *asked, "--judge-option", "die_after=1", code=None)
        if done.code == 0:
            break
    assert done.code == 0 and values(loom) == [1.0] * 6
    calls = judgements(loom.folder())
    assert len(calls) == FABLES + 6
    assert set(Counter(call["key"] for call in calls).values()) == {1}
    assert len(loom.records()) == 6


def test_a_torn_record_is_asked_again(loom: Any, tmp_path: Path) -> None:
    asked = script(tmp_path, {"say": "10"})
    loom(*TELL, *asked)
    path = loom.folder() / "judgements.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    loom(*TELL, *asked)
    assert values(loom) == [1.0] * 6 and len(judgements(loom.folder())) == FABLES + 6


def test_a_metric_takes_options(loom: Any, tmp_path: Path) -> None:
    asked = script(tmp_path, {"say": "10"})
    loom(*TELL, *asked, "--metric-option", "fable_judged.best=20")
    assert values(loom) == [0.5] * 6
    loom("score", loom.folder(), *asked, "--metric-option", "fable.best=40")
    assert values(loom) == [0.25] * 6 or values(loom) == [0.5] * 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--judge", "toy"), "a judge is a model on a server"),
        (("--judge", "doubel:toy"), "did you mean double"),
        (("--judge", "double:toy", "--judge-option", "answer=null"), "unknown option 'answer'"),
        (("--judge-option", "answers=null"), "a judge's options without a judge"),
        (("--metric-option", "fable_judgd.best=2"), "did you mean"),
        (("--metric-option", "fable_judged.bets=2"), "did you mean best"),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(loom: Any, arguments: tuple[str, ...], said: str) -> None:
    assert said in loom(*TELL, *arguments, code=2).err
    assert not (loom.cwd / "runs").exists()


THOUGHT = "<think>The answer says 20, maybe 20.</think>10"
THINKING = ("--judge-option", "thinking=<think>,</think>", "--judge-option", "thinking_budget=100")


def test_a_thinking_judge_is_read_after_its_thinking(loom: Any, tmp_path: Path) -> None:
    asked = script(tmp_path, {"say": THOUGHT})
    loom(*TELL, *asked, *THINKING)
    assert values(loom) == [1.0] * 6
    told = [call for call in judgements(loom.folder()) if call["text"] == "10"]
    assert len(told) == 6 and {call["reasoning"] for call in told} == {"The answer says 20, maybe 20."}
    loom("score", loom.folder())
    assert values(loom) == [1.0] * 6 and len(judgements(loom.folder())) == FABLES + 6, "nothing is asked anew"
    loom("score", loom.folder(), *asked)
    assert values(loom) == [None] * 6, "without its marks the thinking is part of the reply"


def test_a_judge_that_hangs_is_given_up_and_named(loom: Any, tmp_path: Path) -> None:
    asked = (*script(tmp_path, {"say": "10"}), "--judge-option", "seconds=30", "--judge-option", "silence=0.2")
    done = loom(*TELL, *asked)
    assert values(loom) == [None] * 6 and "the judge hangs: no answer within 0.2 s" in " ".join(done.out.split())
    loom("score", loom.folder(), *script(tmp_path, {"say": "10"}))
    assert values(loom) == [1.0] * 6
