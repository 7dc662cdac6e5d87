"""GemFilter against its definition on a whole forward pass, recorded results, and arms it cannot be part of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loom_accel_gemfilter.method import GemFilter
from loom_accel_gemfilter.plugin import GemFilterOptions
from loom_kv.testing import toy_model, toy_prompts
from loom_kv.testing.oracle import check
from loom_server_hf.engine import Engine, Row, RowResult
from loom_server_hf.picking import PickingEngine, first_layers, pick
from loom_server_hf.session import load_picker, load_policy
from torch import Tensor
from torch.nn import functional

from loom_core.api import Budget, ModelError, UsageError, installed, parse_arms

SHARED = Path(os.environ.get("LOOM_SHARED", Path(__file__).resolve().parents[4] / "shared"))


def by_definition(query: Tensor, keys: Tensor, k: int) -> list[int]:
    """Keys repeated for each query head, products, sum, average pooling, top-k, sorted."""
    repeated = keys.repeat_interleave(query.shape[0] // keys.shape[0], dim=0)
    scores = torch.einsum("hd,hnd->n", query, repeated)
    pooled = functional.avg_pool1d(scores[None, None], 5, stride=1, padding=2)[0, 0]
    return sorted(torch.topk(pooled, k).indices.tolist())


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (8, 2), (6, 1)])
def test_scores_are_those_of_the_definition(heads: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(heads)
    query, keys = torch.randn(heads, 16, generator=generator), torch.randn(groups, 80, 16, generator=generator)
    scores = GemFilter(GemFilterOptions()).score(query, keys)
    assert sorted(torch.topk(scores, 20).indices.tolist()) == by_definition(query, keys, 20)
    assert GemFilter(GemFilterOptions(kernel=1, pooling="max")).score(query, keys).shape == (80,)


def rows(prompts: Sequence[Sequence[int]]) -> list[Row]:
    """Prompts to be answered in eight tokens."""
    return [Row(ids=tuple(ids), max_tokens=8, seed=0, eos_ids=frozenset()) for ids in prompts]


def answers(engine: Any, prompts: Sequence[Sequence[int]]) -> dict[int, RowResult]:
    """What the engine says."""
    return dict(engine.run(rows(prompts), None))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mha"])
def test_the_whole_model_reads_the_picked_tokens_anew(kind: str) -> None:
    engine = Engine(toy_model(kind), prefill_chunk=64)
    prompts = toy_prompts([97, 150, 30], 128)
    picker = GemFilter(GemFilterOptions(budget=Budget(tokens=40), layer=1))
    picked = [[ids[i] for i in pick(engine, picker, ids)] for ids in prompts]
    assert [len(ids) for ids in picked] == [40, 40, 30]
    found, expected = answers(PickingEngine(engine, picker), prompts), answers(engine, picked)
    assert {i: r.token_ids for i, r in found.items()} == {i: r.token_ids for i, r in expected.items()}
    assert found[0].kv.kept == pytest.approx(40 / 97) and found[2].kv.kept == 1
    assert found[0].kv.bytes_held < found[0].kv.bytes_dense and found[0].kv.asked == "40"
    assert found[0].kv.saves == "real" and "fits the budget" in found[2].kv.notes[-1]


def test_a_budget_for_all_tokens_is_dense() -> None:
    engine, prompts = Engine(toy_model("llama")), toy_prompts([97, 150], 128)
    whole = PickingEngine(engine, GemFilter(GemFilterOptions(budget=Budget(tokens=150))))
    assert {i: r.token_ids for i, r in answers(whole, prompts).items()} == {
        i: r.token_ids for i, r in answers(engine, prompts).items()
    }


def test_the_chunks_of_the_prefill_change_nothing_and_the_model_stays_whole() -> None:
    model, (ids,) = toy_model("llama"), toy_prompts([150], 128)
    layers = len(model.get_decoder().layers)
    picker = GemFilter(GemFilterOptions(budget=Budget(ratio=0.25), layer=1))
    picks = [pick(Engine(model, prefill_chunk=chunk), picker, ids) for chunk in (7, 64, 4096)]
    assert picks[0] == picks[1] == picks[2] and len(picks[0]) == 37
    assert len(first_layers(model, 1).get_decoder().layers) == 1 and len(model.get_decoder().layers) == layers


def test_a_layer_that_is_not_there_is_refused() -> None:
    picker = GemFilter(GemFilterOptions(budget=Budget(tokens=8), layer=40))
    result = answers(PickingEngine(Engine(toy_model("llama")), picker), toy_prompts([60], 128))[0]
    assert result.error is not None and "no layer 40" in result.error


def test_it_stacks_on_a_cache_method_and_not_on_itself() -> None:
    (arm,) = parse_arms(["gemfilter:budget=64+random:budget=32"], installed())[1:]
    assert isinstance(load_picker(arm), GemFilter) and load_policy(arm).name == "random"
    with pytest.raises(UsageError, match="twice"):
        parse_arms(["gemfilter:budget=64+gemfilter:budget=32"], installed())
    (other,) = parse_arms(["gemfilter:budget=32"], installed())[1:]
    twice = replace(arm, parts=(arm.parts[0], *other.parts))  # as a server may still be handed it
    with pytest.raises(ModelError, match="cannot be stacked"):
        load_picker(twice)


@pytest.mark.skipif(not (SHARED / "oracle").is_dir(), reason="no recorded results here (LOOM_SHARED)")
def test_recorded_results_agree() -> None:
    (row,) = check(SHARED / "oracle", ["gemfilter"])
    assert (row.differ, row.not_covered) == (0, 0) and row.agree >= 15, row.details
