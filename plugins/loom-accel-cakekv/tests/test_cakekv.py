"""CAKE: allocation in closed form and as a property, preferences, and budgets that cascade over the layers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from loom_accel_cakekv.method import CakeKV, allocate
from loom_accel_cakekv.oracle import options as oracle_options
from loom_accel_cakekv.plugin import CakeKVOptions, loom_augmentations
from loom_kv import LayerView
from loom_kv.cascade import Cascade
from loom_kv.testing import Subject, toy_model, toy_prompts, toy_view
from loom_server_hf.engine import Engine, Row
from torch import Tensor

from loom_core.api import Budget, UsageError, build

WINDOW = 8


def options(tokens: int = 24, **values: Any) -> CakeKVOptions:
    return CakeKVOptions(**{"budget": Budget(tokens=tokens), "window": WINDOW, **values})


def test_allocation_by_hand() -> None:
    assert allocate([1.0, 1.0, 1.0], 90, 100) == [30, 30, 30]
    assert allocate([3.0, 1.0], 10, 100) == [8, 2], "7.5 and 2.5 are cut off, the slot that is left goes to the first"
    assert allocate([8.0, 1.0, 1.0], 100, 60) == [60, 20, 20], "20 above the most are shared by the others"
    assert allocate([8.0, 1.0, 1.0], 101, 60) == [61, 20, 20], "a rest may go to a layer that cannot use it"
    assert allocate([5.0], 160, 88) == [160]
    assert allocate([0.0, 0.0], 10, 100) == [5, 5], "no preference at all"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40), st.integers(1, 5000), st.integers(1, 5000))
def test_allocation_spends_the_whole_budget(preferences: list[float], total: int, most: int) -> None:
    slots = allocate(preferences, total, most)
    assert sum(slots) == total
    assert min(slots) >= 0
    if total // len(preferences) < most and max(preferences) == min(preferences):
        assert max(slots) - min(slots) <= 1


def peaked(layer: int, layers: int, columns: int = 60) -> LayerView:
    torch.manual_seed(layer)
    return toy_view(
        torch.randn(1, 4, WINDOW, 16) * (1 + layer), torch.randn(1, 2, columns, 16), layer=layer, layers=layers
    )


def reference(view: LayerView, gamma: float) -> tuple[Tensor, float, float]:
    """Scores [h, N-w], entropy and variance with loops over heads, in float64."""
    assert view.queries is not None
    past = view.columns - WINDOW
    scores = torch.zeros(2, past, dtype=torch.float64)
    entropy = variance = 0.0
    for head in range(4):
        keys = view.k[0, head // 2].double()
        logits = view.queries[0, head].double() @ keys.T / 4
        later = torch.ones(WINDOW, view.columns, dtype=torch.bool).triu(past + 1)
        weights = logits.masked_fill(later, -torch.inf).softmax(-1)[:, :past]
        mean = weights.mean(0)
        spread = ((weights - mean) ** 2).sum(0) / (WINDOW - 1)
        entropy -= float((weights * (weights + 1e-10).log()).sum())
        variance += float(spread.sum())
        line = torch.nn.functional.pad(mean + gamma * spread, (2, 2))
        scores[head // 2] += sum(line[i : i + past] for i in range(5)) / 5 / 2
    return scores, entropy, variance


def test_scores_and_preferences_equal_the_definition() -> None:
    view = peaked(1, 2)
    policy = CakeKV(options(gamma=7.0, tau1=1.6, tau2=0.4))
    policy.start(view.geometry)
    scores = policy.score(view)[0, :, : 60 - WINDOW]
    expected, entropy, variance = reference(view, 7.0)
    assert torch.allclose(scores.double(), expected, rtol=1e-4, atol=1e-7)
    assert policy.preferences[0][0] == pytest.approx(entropy ** (1 / 1.6) * variance ** (1 / 0.4), rel=1e-4)


@pytest.mark.parametrize("cascading", [True, False])
def test_the_layers_hold_the_budget_together_and_unlike_shares(cascading: bool) -> None:
    prompts = toy_prompts((150, 97, 20), 128)
    subject = Subject(
        toy_model("llama"), lambda b: CakeKV(options(budget=b, cascading=cascading)), prompts, Budget(tokens=32)
    )
    trace = subject.run(prompts, subject.make(subject.budget))
    sizes = [[len(layer[0]) for layer in row] for row in trace.kept]
    assert all(len({len(head) for head in layer}) == 1 for row in trace.kept for layer in row)
    assert sum(sizes[0]) == sum(sizes[1]) == 3 * 32 and sizes[2] == [20] * 3
    assert len(set(sizes[0])) > 1
    alone = [subject.run([prompt], subject.make(subject.budget)) for prompt in prompts]
    assert [one.kept[0] for one in alone] == trace.kept
    assert [one.bytes_ for one in alone[:2]] == [2 * 96 * (2 * 16 * 4 + 4)] * 2


def test_rows_with_unlike_shares_are_not_padded_to_the_widest() -> None:
    prompts = toy_prompts((150, 97, 20), 128)
    subject = Subject(toy_model("llama"), lambda b: CakeKV(options(budget=b)), prompts, Budget(tokens=32))
    trace = subject.run(prompts, subject.make(subject.budget))
    shares = {tuple(len(layer[0]) for layer in row) for row in trace.kept}
    assert len(shares) == 3, "every row shares its slots out in its own way"
    slots = 2 * (96 + 96 + 60)
    assert slots * (2 * 16 * 4 + 4) <= trace.bytes_ <= 1.02 * slots * (2 * 16 * 4 + 4)


def test_earlier_layers_are_cut_again_and_only_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[list[set[int]]] = []
    cut = Cascade.cut

    def watching(self: Cascade, stores: Any, shares: Any, allotment: Any) -> None:
        cut(self, stores, shares, allotment)
        stages.append([set(store.positions()[0, 0].tolist()) for store in stores])
        # The whole budget at most, beside the layer that was just read.
        assert sum(map(len, stages[-1])) <= 3 * 32

    monkeypatch.setattr(Cascade, "cut", watching)
    (prompt,) = toy_prompts((150,), 128)
    subject = Subject(toy_model("llama"), lambda b: CakeKV(options(budget=b)), [prompt], Budget(tokens=32))
    trace = subject.run([prompt], subject.make(subject.budget))
    assert [len(stage) for stage in stages] == [1, 2, 3]
    for earlier, later in itertools.pairwise(stages):
        assert all(after < before for before, after in zip(earlier, later, strict=False))
    assert [set(layer[0]) for layer in trace.kept[0]] == stages[-1]


def test_a_prompt_within_budget_and_window_is_left_alone_and_said_so() -> None:
    engine = Engine(toy_model("llama"))
    for n, dense in ((32, True), (33, False)):
        row = Row(ids=toy_prompts((n,), 128)[0], max_tokens=2, seed=0, eos_ids=frozenset())
        ((_, result),) = engine.run([row], CakeKV(options(24)))
        assert (result.kv.kept == 1.0) == dense
        assert any("dense" in note for note in result.kv.notes) == dense


class Spoilt(CakeKV):
    """The row with seed 666 has no preference in layer 1."""

    def score(self, view: LayerView) -> Tensor:
        if view.layer == 1 and 666 in view.seeds:
            assert view.queries is not None
            view.queries[view.seeds.index(666)] = torch.nan
        return super().score(view)


def test_a_row_without_a_preference_fails_alone() -> None:
    engine, prompts = Engine(toy_model("llama")), toy_prompts((90, 70), 128)
    rows = [Row(ids=p, max_tokens=4, seed=666 * n, eos_ids=frozenset()) for n, p in enumerate(prompts)]
    results = dict(engine.run(rows, Spoilt(options())))
    assert results[1].error is not None and "cakekv" in results[1].error and "layer 1" in results[1].error
    ((_, alone),) = engine.run(rows[:1], CakeKV(options()))
    assert results[0].token_ids == alone.token_ids


def test_bad_options_are_refused() -> None:
    for values, words in (
        ({"kernel": "4"}, "odd"),
        ({"budget": "16"}, "window"),
        ({"window": "1"}, "least value"),
        ({"tau1": "0"}, "least value"),
    ):
        with pytest.raises(UsageError) as caught:
            build(CakeKVOptions, values, owner="method cakekv")
        assert words in str(caught.value)


def test_registration_and_oracle_mapping() -> None:
    (spec,) = loom_augmentations()
    assert (spec.name, spec.saves, spec.query_aware) == ("cakekv", "real", True)
    setting = {"B": 48, "w": 8, "gamma": 5.0, "tau1": 1.6, "tau2": 0.4, "cascading": True}
    assert oracle_options("official_cake", setting, 96) == options(48, gamma=5.0, tau1=1.6, tau2=0.4)
    assert oracle_options("official_think", {}, 96) is None
