"""PyramidKV: the table of budgets in closed form, and SnapKV's choice within each layer."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from loom_accel_pyramidkv.method import PyramidKV, kvpress, official
from loom_accel_pyramidkv.oracle import options as oracle_options
from loom_accel_pyramidkv.plugin import PyramidKVOptions, loom_augmentations
from loom_kv.testing import Subject, toy_kept, toy_model, toy_prompts, toy_view
from loom_server_hf.engine import Engine, Row

from loom_core.api import Budget, UsageError, build

WINDOW = 8


def options(**values: Any) -> PyramidKVOptions:
    return PyramidKVOptions(**{"budget": Budget(tokens=24), "window": WINDOW, **values})


def test_a_table_worked_out_by_hand() -> None:
    """L=32, B=2048, w=32, β=20: low 2016 // 20 = 100, high 4032 - 100 = 3932, step 3832 // 31 = 123."""
    own = [official(layer, 32, 100_000, 2048, 32, 20) for layer in range(32)]
    assert own == [3932 - 123 * layer + 32 for layer in range(32)]
    assert (own[0], own[-1]) == (3964, 151)


def test_short_prompts_by_hand() -> None:
    """B=96, w=16: past 80, low 4, high 156."""
    tables = {n: [official(layer, 4, n, 96, 16, 20) for layer in range(4)] for n in (95, 159, 160, 171, 172, 1000)}
    assert tables[95] == [95] * 4, "fits"
    assert tables[159] == [96] * 4, "shorter than twice the past: uniform"
    assert tables[160] == [160, 118, 76, 34], "high 144, low 16, step 128 // 3 = 42, the window on top"
    assert tables[171] == [171, 121, 71, 21], "high 155, low 5, step 50"
    assert tables[172] == tables[1000] == [172, 122, 72, 22]


@settings(max_examples=300, deadline=None)
@given(
    layers=st.integers(1, 40),
    window=st.integers(1, 64),
    past=st.integers(0, 500),
    beta=st.integers(1, 40),
    more=st.integers(0, 3000),
)
def test_official_tables_hold_their_sum(layers: int, window: int, past: int, beta: int, more: int) -> None:
    budget = window + past
    n = budget + more
    table = [official(layer, layers, n, budget, window, beta) for layer in range(layers)]
    assert table == sorted(table, reverse=True)
    assert window <= table[-1] and table[0] <= n
    # Whole steps round down, so later layers keep more: at most l slots in layer l.
    assert 0 <= sum(table) - layers * min(budget, n) <= layers * (layers - 1) // 2 + layers


@settings(max_examples=300, deadline=None)
@given(
    layers=st.integers(2, 40),
    window=st.integers(1, 64),
    share=st.floats(0.05, 0.95),
    beta=st.floats(1, 40),
    n=st.integers(100, 5000),
)
def test_kvpress_tables_hold_their_mean(layers: int, window: int, share: float, beta: float, n: int) -> None:
    table = [kvpress(layer, layers, n, n * share, window, beta) for layer in range(layers)]
    assert table == sorted(table, reverse=True)
    assert abs(sum(table) / layers - n * share) <= 0.5 + 1e-6


def test_each_layer_keeps_its_share_of_snapkvs_ranking() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(1, 4, WINDOW, 16) * 2, torch.randn(1, 2, 90, 16) * 2
    layers = [toy_kept(PyramidKV(options()), toy_view(queries, keys, layer=layer, layers=4))[0] for layer in range(4)]
    assert [[len(head) for head in layer] for layer in layers] == [[n, n] for n in (40, 30, 20, 10)]
    for wide, narrow in itertools.pairwise(layers):
        assert all(small < large for small, large in zip(narrow, wide, strict=True)), "one ranking, other cuts"
    assert all(set(range(82, 90)) <= head for layer in layers for head in layer)


def test_neighbours_of_the_key_that_the_window_wants_are_kept() -> None:
    keys = torch.zeros(1, 1, 60, 4)
    keys[0, 0, 20, 0] = 30.0
    queries = torch.zeros(1, 2, WINDOW, 4)
    queries[..., 0] = 10.0
    (heads,) = toy_kept(PyramidKV(options(budget=Budget(tokens=WINDOW + 5))), toy_view(queries, keys))
    assert heads[0] == {18, 19, 20, 21, 22} | set(range(60 - WINDOW, 60))


def test_memory_is_the_sum_of_the_layers() -> None:
    prompts = toy_prompts((150, 97), 128)
    subject = Subject(toy_model("llama"), lambda b: PyramidKV(options(budget=b)), prompts, Budget(tokens=48))
    trace = subject.run(prompts, subject.make(subject.budget))
    sizes = [[len(layer[0]) for layer in row] for row in trace.kept]
    assert sizes == [[86, 48, 10]] * 2
    policy = subject.make(subject.budget)
    policy.start(subject.engine.geometry)
    assert policy.most_slots(150) == 2 * (86 + 48 + 10)
    assert trace.bytes_ == 2 * 2 * (86 + 48 + 10) * (2 * 16 * 4 + 4)


def test_a_budget_below_the_window_is_refused_with_the_arithmetic() -> None:
    engine = Engine(toy_model("llama"))
    row = Row(ids=toy_prompts((60,), 128)[0], max_tokens=2, seed=0, eos_ids=frozenset())
    ((_, result),) = engine.run([row], PyramidKV(options(budget=Budget(ratio=0.1))))
    assert result.error is not None and "6 slots" in result.error and "takes 8" in result.error


def test_bad_options_are_refused() -> None:
    for values, words in (
        ({"kernel": "4"}, "odd"),
        ({"budget": "16"}, "window"),
        ({"beta": "2.5"}, "whole number"),
        ({"beta": "0.5"}, "least value"),
        ({"rule": "paper"}, "kvpress"),
    ):
        with pytest.raises(UsageError) as caught:
            build(PyramidKVOptions, values, owner="method pyramidkv")
        assert words in str(caught.value)


def test_registration_and_oracle_mapping() -> None:
    (spec,) = loom_augmentations()
    assert (spec.name, spec.saves, spec.query_aware) == ("pyramidkv", "real", True)
    setting = {"compression_ratio": 0.4, "window_size": 8, "kernel_size": 7, "beta": 5}
    row = oracle_options("kvpress_pyramidkv", setting, 256)
    assert row == PyramidKVOptions(budget=Budget(ratio=0.6), window=8, kernel=7, beta=5, rule="kvpress", pool="before")
    assert oracle_options("kvpress_snapkv", {"compression_ratio": 0.5}, 100) is None
