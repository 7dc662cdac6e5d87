"""The adapter's own side: what it explains, and what it does not."""

from __future__ import annotations

from loom_bench_lciteeval.parity import UNREAD, Parity
from loom_parity.contract import Case


def test_only_the_means_up_to_the_last_object_are_explained() -> None:
    right, none = '{"little_penguin": [1], "passage_id": [1]}', "I do not know."
    rows = [
        {"generation": text, "answer": [1, 2], "docs": [], "length": length}
        for text, length in ((right, 100), (none, 200), (none, 9000), (none, 20000), (right, 20001))
    ]
    case = Case(kind="table", name="counting_stars", id="0", function="correct", payload={"rows": rows}, ours=dict)
    ours = {"accuracy": {"all": 20.0, "8000": 25.0, "16000": 0.0, "24000": 25.0}}
    theirs = {"all": 20.0, "8000": 50.0, "24000": 25.0}
    assert Parity().explain(case, {"accuracy": theirs}, ours) == UNREAD
    for other in ({"all": 19.0}, {"8000": 25.0}, {"16000": 0.0}, {"24000": 50.0}):
        assert Parity().explain(case, {"accuracy": theirs | other}, ours) is None
    assert Parity().explain(case, {"raises": "KeyError"}, ours) is None
