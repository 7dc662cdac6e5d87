"""Attention mass, eviction at each decoding step and layers that share a budget, against plain references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import loom_kv as kv
import pytest
import torch
from hypothesis import given, settings, strategies as st
from loom_kv import Allotment, DenseStore, LayerView, Need, Policy, StepsDecode, StepView
from loom_kv.cascade import Cascade
from loom_kv.choose import drop
from loom_kv.mass import ColumnMass
from loom_kv.testing import Subject, fixed_tokens, kept_slots, toy_model, toy_prompts
from loom_server_hf.engine import Engine, Row
from loom_server_hf.host import attached
from loom_server_hf.masked import masked_dense
from torch import Tensor

from loom_core.api import Budget

PROMPTS = toy_prompts((60, 41, 25), 128)


@dataclass(frozen=True)
class Options:
    budget: Budget


class Heavy(Policy):
    """The sums of attention so far decide; the two newest tokens stay."""

    name = "heavy"

    @property
    def need(self) -> Need:
        return Need(mass_stride=1)

    @property
    def steps(self) -> StepsDecode:
        return self

    @property
    def last(self) -> int:
        return 2

    def score(self, view: LayerView) -> Tensor:
        assert view.mass is not None
        return view.mass.sum(dim=2)

    def step(self, view: StepView) -> Tensor:
        return view.scores + view.weights.sum(dim=2)


class Spoilt(Heavy):
    """NaN at the third step, in layer 1, of rows with seed 666."""

    def step(self, view: StepView) -> Tensor:
        scores = super().step(view)
        for row, seed in enumerate(view.seeds):
            if seed == 666 and view.layer == 1 and view.newest[row] == 41 + 2:
                scores[row, 0, -3] = torch.nan
        return scores


def heavy(tokens: int) -> Heavy:
    return Heavy(Options(Budget(tokens=tokens)))


def probabilities(q: Tensor, k: Tensor) -> Tensor:
    """Causal attention of one row: q [H, N, d], k [h, N, d] → [H, N, N] in float64."""
    group = q.shape[0] // k.shape[0]
    logits = q.double() @ k.double().repeat_interleave(group, 0).mT / q.shape[2] ** 0.5
    n = q.shape[1]
    weights: Tensor = logits.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
    return weights


@pytest.mark.parametrize("stride", [1, 3, 7])
@pytest.mark.parametrize("chunk", [40, 11, 1])
def test_mass_equals_the_column_sums_of_the_whole_map(stride: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv.mass, "BLOCK_BYTES", 5 * 2 * 4 * 40 * 4)
    torch.manual_seed(0)
    n_valid = (40, 26)
    q, k = torch.randn(2, 4, 40, 8) * 2, torch.randn(2, 2, 40, 8) * 2
    mass = ColumnMass(n_valid, stride)
    for start in range(0, 40, chunk):
        end = min(40, start + chunk)
        mass.add(5, q[:, :, start:end], k[:, :, :end], None)
    sums = mass.take(5, 2)
    assert sums.shape == (2, 2, 2, 40) and not mass.sums
    for row, n in enumerate(n_valid):
        weights = probabilities(q[row, :, 40 - n :], k[row, :, 40 - n :])
        looked_at = [i for i in range(n) if (n - 1 - i) % stride == 0]
        expected = weights[:, looked_at].sum(1) * stride
        assert torch.allclose(sums[row].flatten(0, 1)[:, 40 - n :].double(), expected, rtol=1e-5, atol=1e-6)
        assert not sums[row].flatten(0, 1)[:, : 40 - n].any()
        assert torch.allclose(sums[row].sum(-1), torch.tensor(float(len(looked_at) * stride)))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, list[int], list[int], int]:
    rows, heads, columns = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(2, 12))
    held = [draw(st.integers(1, columns)) for _ in range(rows)]
    last = draw(st.integers(0, 2))
    slots = [draw(st.integers(max(1, last), 13)) for _ in range(rows)]
    values = st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0, -1.0])
    scores = draw(st.lists(values, min_size=rows * heads * columns, max_size=rows * heads * columns))
    return torch.tensor(scores).view(rows, heads, columns), held, slots, last


@settings(max_examples=200, deadline=None)
@given(problems())
def test_dropping_equals_a_plain_sort(problem: tuple[Tensor, list[int], list[int], int]) -> None:
    scores, held, slots, last = problem
    choice = drop(scores, held, Allotment(slots=slots, last=[last] * len(held)))
    columns = scores.shape[2]
    if choice is None:
        assert all(n <= s for n, s in zip(held, slots, strict=True))
        return
    for row, n in enumerate(held):
        for head in range(scores.shape[1]):
            places = list(range(columns - n, columns))
            ranked = sorted(places, key=lambda p: (p >= columns - last, float(scores[row, head, p]), p), reverse=True)
            empty = 0 if choice.missing is None else int(choice.missing[row, 0])
            assert choice.index[row, head, empty:].tolist() == sorted(ranked[: slots[row]])


def test_the_usual_step_drops_the_earliest_of_the_lowest_that_are_not_protected() -> None:
    scores = torch.tensor([[[0.0, 2.0, 1.0, 3.0, 1.0, 0.5]], [[9.0, 1.0, 1.0, 1.0, 1.0, 0.0]]])
    choice = drop(scores, [6, 6], Allotment(slots=[5, 5], first=1, last=1))
    assert choice is not None and choice.missing is None
    assert choice.index.tolist() == [[[0, 1, 3, 4, 5]], [[0, 2, 3, 4, 5]]]
    slow = drop(scores, [6, 6], Allotment(slots=[5, 5], first=[1, 1], last=[1, 1]))
    assert slow is not None and slow.index.tolist() == choice.index.tolist()


def test_a_store_may_be_cut_again_while_decoding() -> None:
    torch.manual_seed(0)
    store, tokens = DenseStore([6, 4], room=4), torch.randn(2, 2, 9, 4)
    store.attend(tokens[:, :, :6], tokens[:, :, :6], tokens[:, :, :6], None)
    scores = torch.rand(2, 2, 6)
    choice = kv.choose.choose(scores, [6, 4], Allotment(slots=[4, 3]))
    assert choice is not None
    store.keep(choice)
    for t in (6, 7):
        store.attend(tokens[:, :, t : t + 1], tokens[:, :, t : t + 1], tokens[:, :, t : t + 1], None)
    before = store.positions()
    again = drop(torch.rand(2, 2, 6), [6, 5], Allotment(slots=[4, 2], last=1))
    assert again is not None
    store.keep(again, spare=1)
    assert store.k.shape[2] == 5 and store.length == 4
    places = store.positions()
    assert [[sorted({*h.tolist()} - {-1}) for h in row] for row in places] == [
        [sorted({int(before[r, h, i]) for i in again.index[r, h, -n:]}) for h in range(2)] for r, n in ((0, 4), (1, 2))
    ]
    store.attend(tokens[:, :, 8:], tokens[:, :, 8:], tokens[:, :, 8:], None)
    assert store.positions()[:, :, -1].tolist() == [[8, 8], [6, 6]], "the third token after the prompt"
    for row, pad in ((0, 0), (1, 2)):
        for head in range(2):
            for slot, place in enumerate(store.positions()[row, head].tolist()):
                if place >= 0:
                    assert torch.equal(store.k[row, head, slot], tokens[row, head, place + pad])


def grouped(sums: Tensor) -> Tensor:
    """[H, N] → [h, N]: the two query heads of each KV head together."""
    return sums.view(-1, 2, sums.shape[1]).sum(1)


@torch.inference_mode()
def reference(model: Any, prompt: Sequence[int], budget: int, tokens: Sequence[int]) -> list[list[list[int]]]:
    """Kept positions [layer][head] of `Heavy` after the prompt and the tokens, with one map of probabilities per layer.

    Runs through loom's own masked reference only for the maps: each step's map comes from a dense pass whose hidden
    columns are those dropped so far.
    """

    def listen(steps: Sequence[Any], count: int) -> dict[int, Tensor]:
        seen: dict[int, Tensor] = {}
        softmax = Tensor.softmax

        def spying(self: Tensor, *a: Any, **b: Any) -> Tensor:
            out = softmax(self, *a, **b)
            seen[len(seen)] = out[0]
            return out

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tensor, "softmax", spying)
            masked_dense(model, prompt, steps, [torch.tensor([[t]]) for t in tokens[:count]])
        return seen

    layers = model.config.num_hidden_layers
    seen = listen([], 0)
    sums = [grouped(seen[layer].double().sum(1)) for layer in range(layers)]
    kept = [[list(range(len(prompt))) for _ in range(sums[0].shape[0])] for _ in range(layers)]
    steps: list[Any] = []
    for step in range(len(tokens) + 1):
        if step:
            seen = listen(steps, step)
            for layer in range(layers):
                latest = grouped(seen[step * layers + layer][:, 0].double())
                sums[layer] = torch.nn.functional.pad(sums[layer], (0, 1)) + latest
                kept[layer] = [[*head, len(prompt) + step - 1] for head in kept[layer]]
        for layer in range(layers):
            for head, places in enumerate(kept[layer]):
                score = sums[layer][head]
                past = sorted(places[:-2], key=lambda p: (float(score[p]), p), reverse=True)
                kept[layer][head] = sorted([*past[: budget - 2], *places[-2:]]) if len(places) > budget else places
        steps.append([[list(head) for head in layer] for layer in kept])
    return kept


def test_evictions_of_every_step_equal_a_reference_on_dense_maps() -> None:
    model, tokens = toy_model("llama"), [17, 48, 79, 110]
    engine = Engine(model)
    with attached(model):
        batch = engine.start(PROMPTS, [0, 0, 0], heavy(20), chunk=13)
        batch.prefill()
        for token in tokens:
            batch.feed(torch.full((3, 1), token))
    for row, prompt in enumerate(PROMPTS):
        assert kept_slots(batch)[row] == reference(model, prompt, 20, tokens)


def test_several_tokens_at_once_equal_single_ones() -> None:
    subject = Subject(toy_model("qwen3"), lambda budget: Heavy(Options(budget)), PROMPTS, Budget(tokens=20))
    single = subject.run(PROMPTS, subject.make(subject.budget))
    tokens = torch.cat(fixed_tokens(3, subject.engine), dim=1)
    with attached(subject.model):
        batch = subject.engine.start(PROMPTS, [160, 141, 125], subject.make(subject.budget))
        batch.prefill()
        logits = batch.feed(tokens)
    assert kept_slots(batch) == single.steps[-1]
    subject.agree(logits, single.logits[:, -1], "six at once")


def row(ids: tuple[int, ...], tokens: int = 8, seed: int = 0) -> Row:
    return Row(ids=ids, max_tokens=tokens, seed=seed, eos_ids=frozenset())


def test_a_short_prompt_grows_to_its_budget_and_no_further() -> None:
    engine = Engine(toy_model("llama"))
    with attached(engine.model):
        batch = engine.start(PROMPTS, [0, 0, 0], heavy(30), room=64)
        batch.prefill()
        sizes = []
        for _ in range(12):
            batch.feed(torch.full((3, 1), 9))
            sizes.append([len(r[0][0]) for r in kept_slots(batch)])
            assert all(store.k.shape[2] <= 31 for store in batch.session.stores if isinstance(store, DenseStore))
        batch.take([2])
        batch.feed(torch.full((1, 1), 9))
    assert [s[2] for s in sizes] == [26, 27, 28, 29, 30, 30, 30, 30, 30, 30, 30, 30]
    assert all(s[:2] == [30, 30] for s in sizes)
    assert [len(head) for layer in kept_slots(batch)[0] for head in layer] == [30] * 6


def test_a_row_whose_scores_become_nan_while_decoding_fails_alone() -> None:
    engine = Engine(toy_model("llama"))
    rows = [row(PROMPTS[0]), row(PROMPTS[1], seed=666), row(PROMPTS[2], tokens=5)]
    results = dict(engine.run(rows, Spoilt(Options(Budget(tokens=20)))))
    assert results[1].error is not None and "heavy" in results[1].error and "layer 1" in results[1].error
    for index in (0, 2):
        ((_, alone),) = engine.run([rows[index]], heavy(20))
        assert results[index].error is None
        assert results[index].token_ids == alone.token_ids and len(alone.token_ids) == rows[index].max_tokens
    ((_, last),) = engine.run([rows[1]], Spoilt(Options(Budget(tokens=20))))
    assert last.error is not None, "the only row of a batch"


def test_layers_are_cut_as_their_shares_shrink() -> None:
    torch.manual_seed(0)
    stores = [DenseStore([10, 7], room=2) for _ in range(2)]
    scores = [torch.rand(2, 2, 10) for _ in range(2)]
    cascade, rest = Cascade(), Allotment(slots=[0, 0], last=2)
    stages = [[[8, 6]], [[5, 6], [4, 3]]]
    for layer, shares in enumerate(stages):
        tokens = torch.randn(2, 2, 10, 4)
        stores[layer].attend(tokens, tokens, tokens, None)
        cascade.add(scores[layer], [10, 7])
        cascade.cut(stores, shares, rest)
    for layer, counts in enumerate(stages[-1]):
        for r, (n, pad) in enumerate(((10, 0), (7, 3))):
            for head, places in enumerate(stores[layer].positions()[r].tolist()):
                ranked = sorted(range(n - 2), key=lambda p: float(scores[layer][r, head, p + pad]), reverse=True)
                expected = sorted([*ranked[: counts[r] - 2], n - 2, n - 1])
                assert [p for p in places if p >= 0] == expected
    assert stores[0].k.shape[2] == 6 and stores[1].k.shape[2] == 4, "exact storage"
