"""What plugins give is a number within its range, or costs its sample that value and says whose it is."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from loom_core import border
from loom_core.keys import plain
from loom_core.types import Scored

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
    found = border.in_range(Scored(value=value), "em", 0.0, 1.0)
    assert found.value == (None if kept is None else pytest.approx(kept))
    if value is not None and kept is None:
        assert found.detail["error"] == f"metric em gave {value:g}, outside its declared range 0 to 1"


def test_a_range_without_an_end_takes_all() -> None:
    assert border.in_range(Scored(value=1e9), "m", 0.0, None).value == 1e9
    assert border.in_range(Scored(value=-1.0), "m", 0.0, None).value is None
