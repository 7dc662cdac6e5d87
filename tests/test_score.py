"""Scoring: a scorer that raises costs the value and not the sample; scoring again replaces the file whole."""

from __future__ import annotations

from typing import Any

from loom_core.api import BenchmarkBase, Graded, Prompt, Sample, Scored
from loom_core.registry.hosted import HostedBenchmark
from loom_core.score.scoring import scores_together


def test_a_scorer_that_raises_costs_the_value_and_says_why(loom: Any) -> None:
    loom("run", "fable@n=6,mood=moody:tell", "--model", "toy", env={"FABLE_API_KEY": "a-secret-of-the-user"})
    for metric in ("fable_exact@1", "fable_moody@2"):
        scores = loom.scores(metric)
        assert len(scores) == 6
        (bad,) = [score for score in scores if score["value"] is None]
        assert bad["detail"]["error"] == "RuntimeError: no mood for q1: [redacted]"
        assert [score["value"] for score in scores if score is not bad] == [1.0] * 5


def test_scoring_again_gives_the_same_file_and_asks_no_model(loom: Any) -> None:
    loom("run", "fable@n=6:tell", "--model", "toy", "--server-option", "answers=echo")
    path = loom.folder() / "scores-fable_exact@1.jsonl"
    before, responses = path.read_bytes(), (loom.folder() / "responses.jsonl").read_bytes()
    path.unlink()
    done = loom("score", loom.folder())
    assert "6 answers scored" in done.out
    assert path.read_bytes() == before and (loom.folder() / "responses.jsonl").read_bytes() == responses
    assert not list(loom.folder().glob("*.partial"))


def test_wrong_answers_score_nothing(loom: Any) -> None:
    loom("run", "fable@n=6:tell", "--model", "toy", "--server-option", "answers=null")
    assert [score["value"] for score in loom.scores("fable_exact@1")] == [0.0] * 6


def test_failed_answers_have_no_score(loom: Any) -> None:
    loom("run", "fable@n=6:tell", "--model", "toy", "--server-option", "errors=1", code=3)
    assert not list(loom.folder().glob("scores-*"))


def test_the_answer_of_a_strategy_is_what_is_scored(loom: Any) -> None:
    loom("run", "fable@n=4:tell", "--model", "toy", "--accel", "fable_again:calls=2")
    by_key = {record["job"]: record["arm"] for record in loom.records()}
    scores: dict[str, set[tuple[float, bool]]] = {}
    for score in loom.scores("fable_exact@1"):
        scores.setdefault(by_key[score["key"]], set()).add((score["value"], "|" in score["detail"]["extracted"]))
    assert scores == {"dense": {(1.0, False)}, "fable_again:calls=2": {(0.0, True)}}


class _Raises(BenchmarkBase):
    def score_group(self, rows: Any) -> Any:
        raise ZeroDivisionError("no pair")


class _Partly(BenchmarkBase):
    def score_group(self, rows: Any) -> Any:
        return [{"a": Scored(value=0.0)} for _ in rows]


def _row() -> Graded:
    sample = Sample(id="s", task="t", prompt=Prompt(segments=()), references=())
    return Graded(task="t", sample=sample, repeat=0, scored={"a": Scored(value=1.0), "b": Scored(value=1.0)})


def test_a_group_scorer_that_raises_costs_the_values_not_the_samples() -> None:
    both = scores_together(HostedBenchmark(_Raises(), "pairs", ["t"]), [_row(), _row()], [])
    assert [one["a"].value for one in both] == [None, None]
    assert "no pair" in both[0]["b"].detail["error"]


def test_a_group_scorer_may_leave_metrics_alone() -> None:
    [one] = scores_together(_Partly(), [_row()], [])
    assert (one["a"].value, one["b"].value) == (0.0, 1.0)
