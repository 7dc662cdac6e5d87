"""What no machine could make is refused from arithmetic, before anything is made; nonsense is no setting."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loom_core.api import UsageError, installed, parse_arms
from loom_core.pipeline import open_data
from loom_core.run.config import RunConfig
from loom_core.run.plan import make_plan
from loom_core.run.selection import select

MANY = "{" + ",".join(map(str, range(1, 1200))) + "}"


def config(**values: Any) -> RunConfig:
    return RunConfig().merged({"benchmarks": ["passkey"], "model": "toy", **values}, "test")


@pytest.mark.parametrize(
    "values",
    [
        {"budget": math.inf},
        {"budget": math.nan},
        {"budget": 1e300},
        {"devices": [math.nan]},
        {"devices": [True]},
        {"devices": [1.5]},
        {"lengths": [10**12]},
        {"repeats": 10**9},
        {"workers": 10**9},
        {"until": math.nan},
    ],
)
def test_nonsense_is_no_setting(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        config(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"benchmarks": ["passkey@words={}"]},
        {"benchmarks": ["passkey@words=1000000000"]},
        {"benchmarks": ["passkey@repeats=1000000"]},
        {"benchmarks": ["niah@levels=1000000000000"]},
        {"metric_options": {"code.run": "maybe"}},
        {"metric_options": {"code.seconds": "nan"}},
        {"accel": ["bm25+bm25"]},
        {"accel": ["bm25:k=1+bm25:k=2"]},
        {"accel": [f"bm25:k={MANY}"]},
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_read(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        select(config(**values), installed())


def test_a_grid_of_grids_is_refused_by_its_product() -> None:
    with pytest.raises(UsageError, match="the grid is too large"):
        parse_arms([f"bm25:k={MANY},chunk={MANY}"], installed())


def test_lengths_beyond_the_window_are_refused_before_a_prompt_is_made() -> None:
    selection = select(config(lengths="128k", model_options={"window": "16384"}), installed())
    with pytest.raises(UsageError, match="prompts of 131072 tokens are longer than the model's window"):
        make_plan(selection, selection.describe(), open_data(selection.config), None)
