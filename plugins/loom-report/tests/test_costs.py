"""Times of an answer by hand: several calls, rewriting, shared tokens, several turns, differing batches."""

from __future__ import annotations

from typing import Any

import pytest
from loom_report.costs import common_footing, cost, to_first_token
from loom_report.ledger import Answer, Call, Question, RewritingCost

CALL = Call(1, False, 0.0, 0.0, 0.0, 10, 5, 0, 0, None, None, None, None, None, False, None)


def call(seconds: float, first: float | None, *, rewriting: float | None = None, **fields: Any) -> Call:
    """A call of so many seconds, with its first token after `first`."""
    took = None if rewriting is None else RewritingCost(rewriting, 0.0, 0, 0, None, None)
    return CALL._replace(seconds=seconds, to_first_token=first, rewriting=took, **fields)


def answer(number: int, *calls: Call) -> Answer:
    """An answered question."""
    return Answer(f"k{number}", Question(number, "t", f"s{number}", "all", None, None, None), 0, "answered", calls)


@pytest.mark.parametrize(
    ("calls", "first", "whole"),
    [
        ((call(40.0, 39.5),), 39.5, 40.0),
        # A declined first reading, then the whole context.
        ((call(23.0, 13.5, rewriting=0.1), call(50.0, 44.9)), 68.0, 73.1),
        # Three readers and the manager: the first call's first token came after 13.5 s, the answer's after 61.4 s.
        ((call(25.3, 13.5), call(20.6, 1.0), call(14.7, 1.0), call(2.0, 0.8)), 61.4, 62.6),
        ((call(8.0, 6.69, rewriting=340.0),), 346.69, 348.0),
        # Shared tokens are read before, once for all questions: in no question's time.
        ((call(2.0, None, forked=True, shared_seconds=9.0),), None, 2.0),
        ((call(5.0, None), call(2.0, 0.5)), 5.5, 7.0),
        # Two turns: each from its own question on.
        ((call(4.0, 3.0), call(2.0, 1.0, turn=1)), 2.0, 6.0),
        ((call(4.0, 3.0), call(2.0, 1.0, turn=1), call(6.0, 5.0, turn=1)), 5.0, 12.0),
    ],
)
def test_times_are_the_questions(calls: tuple[Call, ...], first: float | None, whole: float) -> None:
    one = answer(0, *calls)
    assert to_first_token(one) == (None if first is None else pytest.approx(first))
    found = cost([one], common_footing({"dense": [one]}))
    assert found["seconds"] == pytest.approx(whole)
    assert found["seconds_to_first_token"] == (None if first is None else pytest.approx(first))
    assert found["seconds_shared"] == sum(one.shared_seconds for one in calls)


def test_an_arm_of_several_calls_is_not_faster_than_dense() -> None:
    dense = [answer(i, call(40.0, 39.0)) for i in range(3)]
    routed = [answer(0, call(14.0, 13.0)), *(answer(i, call(14.0, 13.0), call(40.0, 39.0)) for i in (1, 2))]
    footing = common_footing({"dense": dense, "routed": routed})
    assert cost(dense, footing)["seconds_to_first_token"] == 39.0
    found = cost(routed, footing)
    assert (found["seconds_to_first_token"], found["seconds"], found["comparable"]) == (53.0, 54.0, True)
    assert found["calls"] == pytest.approx(5 / 3) and found["several_calls"] == pytest.approx(2 / 3)


def test_answers_whose_calls_had_different_batches_are_not_left_out() -> None:
    """Their times are marked instead: over the others alone a routing arm would seem to route nothing."""
    dense = [answer(i, call(40.0, 39.0)) for i in range(3)]
    routed = [answer(0, call(14.0, 13.0)), *(answer(i, call(14.0, 13.0), call(40.0, 39.0, batch=2)) for i in (1, 2))]
    footing = common_footing({"dense": dense, "routed": routed})
    found = cost(routed, footing)
    assert (found["seconds_to_first_token"], found["n_timed"], found["comparable"]) == (53.0, 3, False)
    assert cost(dense, footing)["comparable"]
