"""The adapter's own side: what it explains, and what it does not."""

from __future__ import annotations

from loom_bench_lciteeval.parity import UNREAD, Parity

from loom_core.parity import Case


def test_only_buckets_before_unread_answers_are_explained() -> None:
    case = Case(kind="table", name="counting_stars", id="0", function="correct", payload={}, ours=dict)
    ours = {"accuracy": {"all": 10.0, "8000": 5.0}}
    assert Parity().explain(case, {"accuracy": {"all": 10.0}}, ours) == UNREAD
    assert Parity().explain(case, {"accuracy": {"all": 9.0, "8000": 5.0}}, ours) is None
    assert Parity().explain(case, {"raises": "KeyError"}, ours) is None
