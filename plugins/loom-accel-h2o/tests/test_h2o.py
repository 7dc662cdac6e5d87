"""H2O against its definition: column sums of hand-made attention, three evictions by hand, and its budgets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from loom_accel_h2o.method import H2O
from loom_accel_h2o.oracle import options as oracle_options
from loom_accel_h2o.plugin import H2OOptions, loom_augmentations
from loom_kv import Allotment, LayerView, StepView
from loom_kv.choose import drop
from loom_kv.testing import Subject, toy_kept, toy_model, toy_prompts, toy_view
from loom_server_hf.engine import Engine, Row
from torch import Tensor

from loom_core.api import Budget, UsageError, build


def options(tokens: int, **values: Any) -> H2OOptions:
    return H2OOptions(budget=Budget(tokens=tokens), **values)


def seen(mass: Tensor) -> LayerView:
    """A layer whose tokens received `mass` [b, h, g, N]."""
    rows, heads, group, columns = mass.shape
    view = toy_view(torch.zeros(rows, heads * group, 1, 4), torch.zeros(rows, heads, columns, 4))
    return dataclasses.replace(view, mass=mass)


def test_three_evictions_by_hand() -> None:
    """One head, heavy 2 and recent 2: probabilities of four prompt tokens, then of three new ones."""
    prompt = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.1, 0.7, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]])
    policy = H2O(options(4, recent=2))
    view = seen(prompt.sum(0)[None, None, None])
    policy.start(view.geometry)
    scores, allotment = policy.score(view), policy.budget(view)
    assert torch.allclose(scores, torch.tensor([1.7, 1.4, 0.5, 0.4]))
    places, gone = [0, 1, 2, 3], []
    for step, weights in enumerate(([0.1, 0.1, 0.5, 0.2, 0.1], [0.0, 0.0, 0.1, 0.8, 0.1], [0.3, 0.1, 0.5, 0.0, 0.1])):
        seen_step = StepView(
            layer=0,
            weights=torch.tensor(weights)[None, None, None],
            scores=torch.nn.functional.pad(scores, (0, 1)),
            held=torch.ones(1, 1, 5, dtype=torch.bool),
            newest=(4 + step,),
            n_held=(5,),
            allotment=allotment,
            seeds=(0,),
            geometry=view.geometry,
        )
        scores = policy.step(seen_step)
        choice = drop(scores, [5], allotment)
        assert choice is not None
        places.append(4 + step)
        kept = [places[slot] for slot in choice.index[0, 0].tolist()]
        gone += sorted(set(places) - set(kept))
        places, scores = kept, scores.gather(2, choice.index)
    # Sums 1.8 1.5 1.0: 2 goes. Then 1.8 1.5 and 3 with 0.4 + 0.2 + 0.1: 3 goes. Then 2.1 1.6 and 4 with 1.4: 4 goes.
    assert gone == [2, 3, 4]
    assert torch.allclose(scores, torch.tensor([[[2.1, 1.6, 0.1, 0.1]]]))


def test_heads_of_a_group_are_added_and_each_kv_head_keeps_its_own() -> None:
    torch.manual_seed(0)
    mass = torch.rand(1, 2, 3, 30)
    (heads,) = toy_kept(H2O(options(12)), seen(mass))
    for head, slots in enumerate(heads):
        ranked = sorted(range(24), key=lambda p: float(mass[0, head, :, p].sum()), reverse=True)
        assert slots == {*ranked[:6], *range(24, 30)}
    for group in ("mean", "max"):
        (heads,) = toy_kept(H2O(options(12, recent=4, form="oneshot", group=group)), seen(mass))
        reduced = mass[0, 1].mean(0) if group == "mean" else mass[0, 1].max(0).values
        ranked = sorted(range(26), key=lambda p: float(reduced[p]), reverse=True)
        assert heads[1] == {*ranked[:8], *range(26, 30)}


def test_every_row_of_a_batch_has_its_own_recent_tokens() -> None:
    prompts = toy_prompts((96, 40), 128)
    subject = Subject(toy_model("llama"), lambda budget: H2O(H2OOptions(budget=budget)), prompts, Budget(ratio=0.25))
    trace = subject.run(prompts, subject.make(subject.budget))
    for row, (n, slots) in enumerate(((96, 24), (40, 10))):
        for step, kept in enumerate(trace.steps):
            for head in (head for layer in kept[row] for head in layer):
                assert len(head) == slots
                assert set(range(n + step - slots // 2, n + step)) <= set(head)


@pytest.mark.parametrize("form", ["decode", "oneshot"])
def test_the_cache_is_bounded_only_where_the_method_says_so(form: Any) -> None:
    prompts = toy_prompts((80,), 128)
    subject = Subject(
        toy_model("llama"), lambda budget: H2O(H2OOptions(budget=budget, form=form)), prompts, Budget(tokens=20)
    )
    trace = subject.run(prompts, subject.make(subject.budget))
    sizes = [{len(head) for layer in step[0] for head in layer} for step in trace.steps]
    assert sizes == [{20 + (step if form == "oneshot" else 0)} for step in range(len(trace.steps))]


def test_a_stride_is_told_and_looks_at_the_newest_query_first() -> None:
    engine, (prompt,) = Engine(toy_model("llama")), toy_prompts((60,), 128)
    row = Row(ids=prompt, max_tokens=3, seed=0, eos_ids=frozenset())
    ((_, result),) = engine.run([row], H2O(options(20, stride=8)))
    assert result.kv.notes == ("approximate: attention of every 8-th query of the prompt",)
    ((_, result),) = engine.run([row], H2O(options(20)))
    assert result.kv.notes == ()
    ((_, result),) = engine.run([row], H2O(options(100)))
    assert result.kv.notes == ("dense until the budget is full: the prompt of 60 tokens fits the budget of 100",)


def test_budgets_and_bad_options() -> None:
    engine, (prompt,) = Engine(toy_model("llama")), toy_prompts((60,), 128)
    row = Row(ids=prompt, max_tokens=2, seed=0, eos_ids=frozenset())
    ((_, result),) = engine.run([row], H2O(H2OOptions(budget=Budget(ratio=0.1), recent=8)))
    assert result.error is not None and "6 slots" in result.error and "takes 8" in result.error
    for values, words in (
        ({"group": "max"}, "oneshot"),
        ({"budget": "4", "recent": "8"}, "smaller than recent"),
        ({"stride": "0"}, "least value"),
        ({"form": "paper"}, "oneshot"),
    ):
        with pytest.raises(UsageError) as caught:
            build(H2OOptions, values, owner="method h2o")
        assert words in str(caught.value)


def test_registration_and_oracle_mapping() -> None:
    (spec,) = loom_augmentations()
    assert (spec.name, spec.saves, spec.query_aware, spec.phase) == ("h2o", "real", True, "both")
    assert oracle_options("official_h2o", {"hh": 8, "recent": 56}, 256) == options(64, recent=56)
    row = oracle_options("kvcf_h2o_oneshot", {"w": 16, "B": 96, "agg": "max", "mode": "kv_head"}, 256)
    assert row == options(96, recent=16, form="oneshot", group="max")
    assert oracle_options("kvpress_observed_attention", {"compression_ratio": 0.5}, 100) is None


def test_the_allotment_protects_the_recent_tokens_of_each_row() -> None:
    policy, view = H2O(options(9)), seen(torch.rand(2, 1, 1, 30))
    policy.start(view.geometry)
    assert policy.budget(view) == Allotment(slots=[9, 9], first=0, last=[4, 4])
