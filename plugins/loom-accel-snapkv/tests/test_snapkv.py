"""SnapKV against its definition, written once more in the plainest way, and on hand-made attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loom_accel_snapkv.method import SnapKV
from loom_accel_snapkv.oracle import options as oracle_options
from loom_accel_snapkv.plugin import SnapKVOptions, loom_augmentations
from loom_kv import Geometry, LayerView
from loom_kv.choose import choose
from torch import Tensor

from loom_core.api import Budget, UsageError, build
from loom_core.contract.options import budget as parse_budget

N, WINDOW = 60, 8


def view(queries: Tensor, keys: Tensor, n_valid: tuple[int, ...] | None = None) -> LayerView:
    """q [b, H, w, d] and k [b, h, N, d] as a policy sees them."""
    rows, heads, columns, dim = keys.shape
    counts = n_valid or (columns,) * rows
    valid = None
    if n_valid is not None:
        valid = (torch.arange(columns) >= torch.tensor([[columns - n] for n in n_valid]))[:, None]
    geometry = Geometry(
        layers=1,
        query_heads=queries.shape[1],
        kv_heads=heads,
        key_dim=dim,
        value_dim=dim,
        dtype=keys.dtype,
        device=keys.device,
    )
    return LayerView(
        layer=0,
        k=keys,
        v=keys,
        n_valid=counts,
        valid=valid,
        queries=queries,
        scaling=dim**-0.5,
        seeds=(0,) * rows,
        geometry=geometry,
    )


def kept(options: SnapKVOptions, seen: LayerView) -> list[list[set[int]]]:
    """The kept columns [row][head]."""
    policy = SnapKV(options)
    policy.start(seen.geometry)
    choice = choose(policy.score(seen), seen.n_valid, policy.budget(seen))
    assert choice is not None
    return [[set(head) for head in row] for row in choice.index.tolist()]


def reference(options: SnapKVOptions, queries: Tensor, keys: Tensor) -> list[set[int]]:
    """One row, one KV head after another, with Python loops over tokens: the definition in the method's header."""
    heads, columns, dim = keys.shape
    group, window, half = queries.shape[0] // heads, options.window, options.kernel // 2
    past = columns - window
    result = []
    for head in range(heads):
        sums = []
        for member in range(group):
            query = queries[head * group + member]
            weights = torch.zeros(window, columns, dtype=torch.float64)
            for i in range(window):
                end = past + i + 1
                logits = (keys[head, :end].double() @ query[i].double()) / dim**0.5
                weights[i, :end] = logits.softmax(0)
            sums.append(weights.sum(0)[:past])
        scores = torch.stack(sums)

        def pooled(line: Tensor) -> Tensor:
            out = torch.zeros(past, dtype=torch.float64)
            for p in range(past):
                near = line[max(0, p - half) : p + half + 1]
                out[p] = near.sum() / options.kernel if options.pooling == "avg" else near.max()
            return out

        def reduced(table: Tensor) -> Tensor:
            return table.mean(0) if options.group == "mean" else table.max(0).values

        if options.pool == "before":
            final = reduced(torch.stack([pooled(line) for line in scores]))
        else:
            final = pooled(reduced(scores))
        assert options.budget.tokens is not None
        # float32, as the method ranks, so that plateaus of a max pooling stay plateaus
        order = sorted(range(past), key=lambda p: (round(float(final[p]), 9), p), reverse=True)
        result.append(set(order[: options.budget.tokens - window]) | set(range(past, columns)))
    return result


@pytest.mark.parametrize("pool", ["before", "after"])
@pytest.mark.parametrize("group", ["mean", "max"])
@pytest.mark.parametrize(("pooling", "kernel"), [("avg", 1), ("avg", 5), ("max", 5), ("max", 9)])
def test_kept_sets_equal_the_definition(pool: Any, group: Any, pooling: Any, kernel: int) -> None:
    torch.manual_seed(3)
    queries, keys = torch.randn(1, 6, WINDOW, 16) * 2, torch.randn(1, 2, N, 16) * 2
    options = SnapKVOptions(
        budget=Budget(tokens=24), window=WINDOW, kernel=kernel, pooling=pooling, group=group, pool=pool
    )
    assert kept(options, view(queries, keys))[0] == reference(options, queries[0], keys[0])


def test_neighbours_of_the_key_that_the_window_wants_are_kept() -> None:
    keys = torch.zeros(1, 1, N, 4)
    keys[0, 0, 20, 0] = 30.0
    queries = torch.zeros(1, 2, WINDOW, 4)
    queries[..., 0] = 10.0
    options = SnapKVOptions(budget=Budget(tokens=WINDOW + 5), window=WINDOW, kernel=5)
    assert kept(options, view(queries, keys))[0][0] == {18, 19, 20, 21, 22} | set(range(N - WINDOW, N))


def test_padding_neither_scores_nor_counts() -> None:
    torch.manual_seed(1)
    queries, keys = torch.randn(2, 4, WINDOW, 16), torch.randn(2, 2, N, 16)
    options = SnapKVOptions(budget=Budget(tokens=20), window=WINDOW)
    padded = kept(options, view(queries, keys, (N, 40)))
    alone = kept(options, view(queries[1:], keys[1:, :, N - 40 :]))
    assert [{p - (N - 40) for p in head} for head in padded[1]] == alone[0]
    assert padded[0] == kept(options, view(queries[:1], keys[:1]))[0]


def test_both_orders_agree_for_average_and_mean_and_differ_for_maximum() -> None:
    torch.manual_seed(2)
    seen = view(torch.randn(1, 8, WINDOW, 16) * 2, torch.randn(1, 2, N, 16) * 2)
    sets = {
        (pooling, pool): kept(
            SnapKVOptions(budget=Budget(tokens=24), window=WINDOW, kernel=7, pooling=pooling, pool=pool), seen
        )
        for pooling in ("avg", "max")
        for pool in ("before", "after")
    }
    assert sets["avg", "before"] == sets["avg", "after"]
    assert sets["max", "before"] != sets["max", "after"]


def test_bad_options_are_refused() -> None:
    for values, words in (({"kernel": "4"}, "odd"), ({"budget": "16"}, "window"), ({"window": "0"}, "least value")):
        with pytest.raises(UsageError) as caught:
            build(SnapKVOptions, values, owner="method snapkv")
        assert words in str(caught.value)


def test_registration_and_oracle_mapping() -> None:
    (spec,) = loom_augmentations()
    assert (spec.name, spec.saves, spec.query_aware) == ("snapkv", "real", True)
    row = oracle_options("kvpress_snapkv", {"compression_ratio": 0.9, "window_size": 8, "kernel_size": 3}, 1000)
    assert row is not None
    assert row.budget == Budget(tokens=99), "int(1000 * (1 - 0.9)) is 99 in floating point"
    assert oracle_options("kvpress_knorm", {"compression_ratio": 0.5}, 100) is None
    assert SnapKVOptions().budget == parse_budget("2k")
