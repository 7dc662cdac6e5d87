"""What plugins give is a number within its range, or costs its sample that value and says whose it is."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from loom_core.api import KVUse, PluginError, Response, Scored, Timing
from loom_core.contract import border
from loom_core.contract.keys import plain

numpy = pytest.importorskip("numpy")


@pytest.mark.parametrize(
    "value", ["0.5", [1.0], 1j, 10**400, 1e308, math.nan, -math.inf, {"a": 1}, object(), numpy.array([1.0, 2.0])]
)
def test_what_is_no_number_costs_its_value(value: Any) -> None:
    kept = border.scored(Scored(value=value, extracted="x"), "em")
    assert (kept.value, kept.extracted) == (None, "x")
    assert "em" in kept.detail["error"]
    json.dumps(plain(kept), allow_nan=False)


@pytest.mark.parametrize("given", [None, 0.5, "x", [], {"em": 1.0}, numpy.float32(1)])
def test_what_is_no_score_costs_its_value(given: Any) -> None:
    kept = border.scored(given, "em")
    assert kept.value is None
    assert "em" in kept.detail["error"]


@pytest.mark.parametrize("value", [numpy.float32(0.5), numpy.float64(0.5), numpy.array(0.5), 0.5])
def test_scalars_of_numpy_are_numbers(value: Any) -> None:
    kept = border.scored(Scored(value=value, detail={"hits": numpy.int64(3)}), "em")
    assert (kept.value, type(kept.value), dict(kept.detail)) == (0.5, float, {"hits": 3})


@pytest.mark.parametrize("detail", [{"x": math.nan}, {"x": object()}, None, [1]])
def test_a_detail_that_is_no_json_costs_the_value(detail: Any) -> None:
    kept = border.scored(Scored(value=1.0, detail=detail), "em")
    assert kept.value is None
    json.dumps(plain(kept), allow_nan=False)


@pytest.mark.parametrize(("value", "kept"), [(5.0, None), (-3.0, None), (1.0 + 1e-12, 1.0), (0.0, 0.0), (None, None)])
def test_a_value_outside_its_range_is_refused_by_name(value: float | None, kept: float | None) -> None:
    found = border.in_range(Scored(value=value), "em", 0.0, 1.0, "loom-metric-x")
    assert found.value == (None if kept is None else pytest.approx(kept))
    if value is not None and kept is None:
        assert found.detail["error"] == f"metric em of loom-metric-x gave {value:g}, outside its declared range 0 to 1"


def test_a_range_without_an_end_takes_all() -> None:
    assert border.in_range(Scored(value=1e9), "m", 0.0, None, "x").value == 1e9
    assert border.in_range(Scored(value=-1.0), "m", 0.0, None, "x").value is None


AT = Timing(queued=1.0, started=2.0, first_token=3.0, ended=4.0)
GOOD = Response(key="k", text="42", finish="stop", n_in=5, n_out=2, timing=AT)
KV = KVUse(bytes_dense=8, bytes_held=4, kept=0.5, saves="real")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"n_in": -5}, "n_in=-5"),
        ({"n_out": 2.5}, "n_out=2.5"),
        ({"n_out": 10**12}, "n_out=1000000000000"),
        ({"n_cached": -1}, "n_cached=-1"),
        ({"n_dropped": None}, "n_dropped=None"),
        ({"n_reasoning": -1}, "n_reasoning=-1"),
        ({"peak_bytes": -1}, "peak_bytes=-1"),
        ({"cost": math.nan}, "cost=nan"),
        ({"cost": -0.1}, "cost=-0.1"),
        ({"finish": "evil"}, "the finish 'evil'"),
        ({"finish": None}, "the finish None"),
        ({"error": "x"}, "an answer (stop) with an error"),
        ({"finish": "error"}, "an error without a reason"),
        ({"text": None}, "None (NoneType) where a text was expected"),
        ({"reasoning": 5}, "where the reasoning was expected"),
        ({"notes": "a note"}, "notes that are not a tuple"),
        ({"token_ids": (1, -2)}, "token ids"),
        ({"timing": None}, "where a Timing was expected"),
        (
            {"timing": Timing(queued=0.0, started=5.0, first_token=0.0, ended=6.0)},
            "run backwards: first_token lies 5 s",
        ),
        ({"timing": Timing(queued=0.0, started=5.0, first_token=None, ended=1.0)}, "run backwards: ended lies 4 s"),
        ({"timing": Timing(queued=0.0, started=0.0, first_token=None, ended=math.inf)}, "timing.ended=inf"),
        ({"timing": Timing(queued=0.0, started=0.0, first_token=None, ended=0.0, batch=0)}, "timing.batch=0"),
        ({"timing": Timing(queued=0, started=0, first_token=None, ended=0, shared_seconds=-1.0)}, "shared_seconds=-1"),
        ({"kv": {"bytes_held": 3}}, "where a KVUse was expected"),
        ({"kv": KVUse(bytes_dense=8, bytes_held=-4, kept=0.5, saves="real")}, "kv.bytes_held=-4"),
        ({"kv": KVUse(bytes_dense=8, bytes_held=4, kept=math.nan, saves="real")}, "kv.kept=nan"),
        ({"kv": KVUse(bytes_dense=8, bytes_held=4, kept=0.5, saves="much")}, "kv.saves='much'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_response_becomes_an_error_with_its_culprit(wrong: dict[str, Any], named: str) -> None:
    kept = border.answered(dataclasses.replace(GOOD, **wrong), "evil", "q7")
    assert (kept.key, kept.text, kept.finish, kept.n_in, kept.n_out) == ("k", "", "error", 0, 0)
    assert kept.error is not None and named in kept.error and "server evil returned" in kept.error
    assert "sample q7" in kept.error
    json.dumps(plain(kept), allow_nan=False)


def test_a_response_stays_as_it_is() -> None:
    for given in (GOOD, dataclasses.replace(GOOD, kv=KV, cost=0.5, n_reasoning=1, peak_bytes=0, token_ids=(1, 2))):
        assert border.answered(given, "hf", "q7") == given
    failed = dataclasses.replace(GOOD, text="", finish="error", error="out of memory")
    assert border.answered(failed, "hf", "q7") == failed
    counted = border.answered(dataclasses.replace(GOOD, n_in=numpy.int64(5)), "hf", "q7")
    assert (counted.n_in, type(counted.n_in)) == (5, int)


def test_an_answer_to_no_request_names_the_server() -> None:
    assert border.request_of(GOOD, "hf", {"k": 1}) == "k"
    for given in (None, {"key": "k"}, dataclasses.replace(GOOD, key="other")):
        with pytest.raises(PluginError, match="server evil"):
            border.request_of(given, "evil", {"k": 1})


@pytest.mark.parametrize("given", ["0.5", Scored(value=math.nan), Scored(value=1.0, detail={"x": object()}), 7.0])
def test_every_refusal_names_metric_and_distribution(given: Any) -> None:
    kept = border.in_range(border.scored(given, "em"), "em", 0.0, 1.0, "loom-metric-x")
    assert kept.value is None
    assert "metric em" in kept.detail["error"] and kept.detail["error"].endswith("of loom-metric-x")
    assert border.REFUSED not in kept.detail
    own = Scored(value=None, detail={"error": "the judge gave none"})
    assert border.in_range(border.scored(own, "em"), "em", 0.0, 1.0, "loom-metric-x") == own
