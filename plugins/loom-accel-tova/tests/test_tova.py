"""TOVA against its definition, written once more in the plainest way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loom_accel_tova.method import TOVA
from loom_accel_tova.oracle import options as oracle_options
from loom_accel_tova.plugin import TOVAOptions, loom_augmentations
from loom_kv import Allotment, StepView
from loom_kv.testing import Subject, toy_kept, toy_model, toy_prompts, toy_view
from loom_server_hf.engine import Row
from torch import Tensor

from loom_core.api import Budget, UsageError, build

N = 50


def policy(tokens: int) -> TOVA:
    return TOVA(TOVAOptions(budget=Budget(tokens=tokens)))


def reference(query: Tensor, keys: Tensor, tokens: int) -> set[int]:
    """One layer: query [H, d] of the last token, keys [h, N, d]."""
    group = query.shape[0] // keys.shape[0]
    mean = torch.zeros(keys.shape[1], dtype=torch.float64)
    for head in range(query.shape[0]):
        logits = keys[head // group].double() @ query[head].double() / query.shape[1] ** 0.5
        mean += logits.softmax(0) / query.shape[0]
    past = sorted(range(keys.shape[1] - 1), key=lambda p: float(mean[p]), reverse=True)
    return {*past[: tokens - 1], keys.shape[1] - 1}


@pytest.mark.parametrize("tokens", [1, 2, 17, N - 1])
def test_kept_sets_equal_the_definition(tokens: int) -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 6, 1, 16) * 2, torch.randn(2, 2, N, 16) * 2
    rows = toy_kept(policy(tokens), toy_view(queries, keys))
    for row, heads in enumerate(rows):
        assert all(head == reference(queries[row, :, 0], keys[row], tokens) for head in heads)


def test_the_newest_token_stays_although_nobody_looks_at_it() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(1, 2, 1, 8), torch.randn(1, 2, N, 8)
    keys[:, :, -1] = -10 * queries[:, :, 0]
    (heads,) = toy_kept(policy(5), toy_view(queries, keys))
    assert N - 1 in heads[0]


def test_padding_neither_scores_nor_counts() -> None:
    torch.manual_seed(1)
    queries, keys = torch.randn(2, 4, 1, 8), torch.randn(2, 2, N, 8)
    keys[1, :, :20] = 50 * queries[1, :2, :1]
    padded = toy_kept(policy(9), toy_view(queries, keys, n_valid=(N, 30)))
    alone = toy_kept(policy(9), toy_view(queries[1:], keys[1:, :, 20:]))
    assert [{p - 20 for p in head} for head in padded[1]] == alone[0]


def test_all_heads_keep_the_same_tokens_and_layers_differ() -> None:
    prompts = toy_prompts((80,), 128)
    subject = Subject(toy_model("mha"), lambda budget: TOVA(TOVAOptions(budget=budget)), prompts, Budget(ratio=0.25))
    (layers,) = subject.run(prompts, subject.make(subject.budget)).kept
    assert all(len({tuple(head) for head in layer}) == 1 and len(layer[0]) == 20 for layer in layers)
    assert len({tuple(layer[0]) for layer in layers}) == 3
    row = Row(ids=prompts[0], max_tokens=2, seed=0, eos_ids=frozenset())
    ((_, result),) = subject.engine.run([row], subject.make(subject.budget))
    geometry = subject.engine.geometry
    # One position and one score (4 bytes each) per slot serve all heads of a layer.
    assert result.kv.bytes_held == 20 * (geometry.bytes_per_token + 8 * geometry.layers)


def test_each_step_drops_the_slot_that_its_token_looks_at_least() -> None:
    torch.manual_seed(0)
    weights = torch.rand(1, 2, 3, 7)
    geometry = toy_view(torch.randn(1, 6, 1, 8), torch.randn(1, 2, 7, 8)).geometry
    seen = StepView(
        layer=0,
        weights=weights,
        scores=torch.randn(1, 1, 7),
        held=torch.ones(1, 1, 7, dtype=torch.bool),
        newest=(9,),
        n_held=(7,),
        allotment=Allotment(slots=[6], last=1),
        seeds=(0,),
        geometry=geometry,
    )
    scores = policy(6).step(seen)
    assert torch.allclose(scores, weights[0].flatten(0, 1).mean(0)[None, None])


@pytest.mark.parametrize("form", ["decode", "prefill"])
def test_the_cache_stays_at_its_budget_in_the_papers_form_and_grows_in_the_other(form: Any) -> None:
    prompts = toy_prompts((80, 33), 128)
    subject = Subject(
        toy_model("llama"), lambda budget: TOVA(TOVAOptions(budget=budget, form=form)), prompts, Budget(tokens=20)
    )
    trace = subject.run(prompts, subject.make(subject.budget))
    for number, step in enumerate(trace.steps):
        for layer in step[0] + step[1]:
            assert all(head == layer[0] for head in layer), "one ranking for all heads"
            assert len(layer[0]) == (20 if form == "decode" else 20 + number)


def test_bad_options_are_refused() -> None:
    for values, words in (({"budget": "0"}, "positive"), ({"window": "4"}, "unknown option")):
        with pytest.raises(UsageError) as caught:
            build(TOVAOptions, values, owner="method tova")
        assert words in str(caught.value)


def test_registration_and_oracle_mapping() -> None:
    (spec,) = loom_augmentations()
    assert (spec.name, spec.saves, spec.query_aware, spec.phase) == ("tova", "real", True, "both")
    assert oracle_options("kvpress_tova", {"compression_ratio": 0.9}, 1000) == TOVAOptions(
        budget=Budget(tokens=99), form="prefill"
    )
    assert oracle_options("kvpress_knorm", {"compression_ratio": 0.5}, 100) is None
