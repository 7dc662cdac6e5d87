"""L2 compression against a plain sort of norms; spared layers, short prompts, rounding, ties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loom_accel_l2compress.method import L2Compress
from loom_accel_l2compress.oracle import options as oracle_options
from loom_accel_l2compress.plugin import L2CompressOptions, loom_augmentations
from loom_kv.testing import Subject, toy_kept, toy_model, toy_prompts, toy_view
from torch import Tensor

from loom_core.api import Budget, UsageError, build

N = 40


def options(**values: Any) -> L2CompressOptions:
    return L2CompressOptions(**{"budget": Budget(tokens=12), "skip_layers": "none", **values})


def kept(keys: Tensor, n_valid: tuple[int, ...] | None = None, **values: Any) -> list[list[set[int]]]:
    return toy_kept(L2Compress(options(**values)), toy_view(keys[:, :, :1], keys, n_valid=n_valid))


def test_the_smallest_norms_stay() -> None:
    torch.manual_seed(0)
    keys = torch.randn(2, 3, N, 8)
    norms = keys.double().square().sum(-1).sqrt()
    for row, heads in enumerate(kept(keys)):
        for head, slots in enumerate(heads):
            assert slots == set(sorted(range(N), key=norms[row, head].tolist().__getitem__)[:12])


def test_a_key_made_long_is_dropped_first() -> None:
    torch.manual_seed(0)
    keys = torch.randn(1, 2, N, 8)
    keys[0, 1, 7] *= 100
    keys[0, 0, 9] /= 100
    heads = kept(keys, budget=Budget(tokens=N - 1))[0]
    assert heads[1] == set(range(N)) - {7}
    assert 9 in kept(keys, budget=Budget(tokens=1))[0][0]


def test_equal_norms_go_to_the_later_token_whatever_the_last_bits() -> None:
    angle = torch.rand(N) * 6
    keys = torch.zeros(1, 1, N, 8)
    keys[0, 0, :, 0], keys[0, 0, :, 4] = 3.3 * angle.cos(), 3.3 * angle.sin()
    assert len(set(keys[0, 0].norm(dim=-1).tolist())) > 1, "rotation moves the last bits"
    assert kept(keys)[0][0] == set(range(N - 12, N))


def test_rounding_merges_noise_only() -> None:
    keys = torch.zeros(1, 1, 2, 8)
    for gap, stays in ((1e-7, {1}), (1e-5, {0})):
        keys[0, 0, :, 0] = torch.tensor([1.3, 1.3 * (1 + gap)])
        assert kept(keys, budget=Budget(tokens=1))[0][0] == stays


def test_padding_neither_scores_nor_counts() -> None:
    torch.manual_seed(1)
    keys = torch.randn(2, 2, N, 8)
    keys[1, :, :15] = 0.0
    padded = kept(keys, (N, 25))
    assert [{p - 15 for p in head} for head in padded[1]] == kept(keys[1:, :, 15:])[0]


def test_spared_layers_and_short_prompts_keep_everything() -> None:
    prompts = toy_prompts((60, 30), 128)

    def make(budget: Budget) -> L2Compress:
        return L2Compress(options(budget=budget, skip_layers="0/2/9", prune_after=31))

    subject = Subject(toy_model("llama"), make, prompts, Budget(tokens=20))
    trace = subject.run(prompts, make(subject.budget))
    sizes = [[{len(head) for head in layer} for layer in row] for row in trace.kept]
    assert sizes == [[{60}, {20}, {60}], [{30}, {30}, {30}]]
    notes = [use.notes for use in trace.batch.session.uses()]
    assert notes == [(), ("dense: the prompt of 30 tokens is shorter than prune_after=31",)]
    policy = make(subject.budget)
    policy.start(subject.engine.geometry)
    assert (policy.most_slots(60), policy.most_slots(30)) == (2 * (60 + 20 + 60), 2 * 90)


def test_a_ratio_is_rounded_as_asked() -> None:
    for rounding, expected in (("floor", 76), ("ceil", 77)):
        policy = L2Compress(options(budget=Budget(ratio=0.3), rounding=rounding))
        policy.start(toy_view(torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, 1, 8)).geometry)
        assert policy.slots(256) == expected


def test_bad_options_are_refused() -> None:
    for values, words in (
        ({"skip_layers": "-1"}, "not a list of layers"),
        ({"skip_layers": "all"}, "not a list of layers"),
        ({"skip_layers": "5-3"}, "lower layer"),
        ({"prune_after": "-5"}, "expected a whole number"),
        ({"budget": "0"}, "positive"),
        ({"rounding": "up"}, "ceil"),
    ):
        with pytest.raises(UsageError) as caught:
            build(L2CompressOptions, values, owner="method l2compress")
        assert words in str(caught.value)


def test_registration_and_oracle_mapping() -> None:
    (spec,) = loom_augmentations()
    assert (spec.name, spec.saves, spec.query_aware) == ("l2compress", "real", False)
    built = build(L2CompressOptions, {"skip_layers": "none", "budget": "4x"}, owner="method l2compress")
    assert built == L2CompressOptions(budget=Budget(ratio=0.25), skip_layers="none")
    assert options(skip_layers="0-1/5/7-9").skipped == {0, 1, 5, 7, 8, 9}
    assert L2CompressOptions().skipped == {0, 1}
    assert oracle_options("kvpress_knorm", {"compression_ratio": 0.9}, 1000) == options(budget=Budget(tokens=99))
    row = oracle_options("official_l2compress", {"keep_ratio": 0.3, "prune_after": 64, "skip_layers": [0, 1]}, 256)
    assert row == L2CompressOptions(budget=Budget(tokens=77), skip_layers="0/1", prune_after=64)
    assert oracle_options("kvcf_l2norm", {"B": 64, "skip": []}, 500) == options(budget=Budget(tokens=64))
    assert oracle_options("kvpress_tova", {"compression_ratio": 0.5}, 100) is None
