"""The quantised formats and the store that holds them, against plain definitions; policies and codecs composed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings, strategies as st
from loom_kv import (
    Allotment,
    Codec,
    Format,
    GroupedStore,
    HeldView,
    LayerView,
    Policy,
    SharesHeads,
    SharesLayers,
    StepsDecode,
    StepView,
    Store,
    Stream,
    compose,
)
from loom_kv.quantise import Packed
from loom_kv.testing import toy_model, toy_prompts
from loom_server_hf.baselines import RandomEviction
from loom_server_hf.engine import Engine, Row
from loom_server_hf.options import RandomOptions
from torch import Tensor

from loom_core.api import Budget, ModelError


@st.composite
def formats(draw: st.DrawFn) -> Format:
    """Any format whose groups fill bytes."""
    bits = draw(st.sampled_from((1, 2, 4, 8)))
    along: Literal["tokens", "channels"] = draw(st.sampled_from(("tokens", "channels")))
    group = 8 // bits * draw(st.sampled_from((1, 2, 4)))
    return Format(bits=bits, group=group, along=along, inverse=draw(st.booleans()), high_first=draw(st.booleans()))


@settings(max_examples=60, deadline=None)
@given(form=formats(), seed=st.integers(0, 999), dtype=st.sampled_from((torch.float32, torch.bfloat16)))
def test_values_are_within_half_a_step_and_bytes_are_the_formula(form: Format, seed: int, dtype: torch.dtype) -> None:
    torch.manual_seed(seed)
    x = (torch.randn(2, 3, 32, 32) * torch.rand(32) * 20).to(dtype)
    x[0, 0] = 1.5
    packed = form.encode(x)
    back = form.decode(packed)
    assert back.dtype == dtype and back.shape == x.shape
    assert torch.equal(back[0, 0], x[0, 0]), "a constant group is exact"
    levels = 2**form.bits - 1
    scale = packed.scale.float().repeat_interleave(form.group, dim=form.axis)
    step = 1 / scale if form.inverse else scale
    rounding = 2 * torch.finfo(dtype).eps * (x.float().abs() + levels * step.nan_to_num(posinf=0))
    assert ((back.float() - x.float()).abs() <= step / 2 + rounding).all()
    held = sum(t.untyped_storage().nbytes() for t in (packed.codes, packed.scale, packed.least))
    assert held == 6 * form.bytes_held(32, 32, dtype.itemsize)


@settings(max_examples=30, deadline=None)
@given(form=formats(), seed=st.integers(0, 999))
def test_packed_codes_come_back(form: Format, seed: int) -> None:
    torch.manual_seed(seed)
    codes = torch.randint(0, 2**form.bits, (2, 32, 32), dtype=torch.uint8)
    packed = form._pack(codes)
    assert packed.numel() == codes.numel() * form.bits // 8
    assert torch.equal(form.codes(packed), codes)


def test_the_order_of_codes_in_a_byte() -> None:
    x = torch.tensor([[0.0, 15.0, 1.0, 2.0]])
    low = Format(bits=4, group=4, along="channels").encode(x).codes
    high = Format(bits=4, group=4, along="channels", inverse=True, high_first=True).encode(x).codes
    assert low.tolist() == [[0xF0, 0x21]]
    assert high.tolist() == [[0x0F, 0x12]]


def test_half_a_step_is_rounded_to_the_even_code() -> None:
    x = torch.tensor([[0.0, 3.0, 0.5, 1.5]])
    assert Format(bits=2, group=4, along="channels").codes(
        Format(bits=2, group=4, along="channels").encode(x).codes
    ).tolist() == [[0, 3, 0, 2]]


@pytest.mark.parametrize(("bits", "group", "words"), [(3, 8, "bits=3"), (2, 6, "does not fill"), (4, 0, "group=0")])
def test_formats_that_do_not_fill_bytes_are_refused(bits: int, group: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Format(bits=bits, group=group, along="tokens")


# --- the store -----------------------------------------------------------------------------------------------------


def a_view(counts: tuple[int, ...], seed: int = 0) -> HeldView:
    """Rows with these many slots, right-aligned, noise in the empty ones."""
    torch.manual_seed(seed)
    most = max(counts)
    k, v = torch.randn(len(counts), 2, most, 16), torch.randn(len(counts), 2, most, 16)
    missing = tuple(most - count for count in counts)
    return HeldView(layer=0, k=k, v=v, missing=missing, kept=None, n_valid=counts, queries=None, scores=None, room=5)


@dataclass
class Reference:
    """A row's keys and values, quantised token by token as the rule of the window says, in the plainest way."""

    form: Format
    window: int

    def held(self, x: Tensor) -> Tensor:
        """x [h, N, d] as a store must hold it, whatever the order in which it came."""
        n = x.shape[1]
        end = n - n % self.window if self.form.along == "tokens" else max(0, n - self.window)
        return torch.cat([self.form.decode(self.form.encode(x[:, :end])), x[:, end:]], dim=1)


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    steps=st.lists(st.integers(1, 9), max_size=6),
    window=st.sampled_from((8, 16)),
    whole=st.booleans(),
)
def test_rows_hold_what_the_rule_says_however_they_came(
    counts: list[int], steps: list[int], window: int, whole: bool
) -> None:
    keys = Format(bits=2, group=8, along="tokens" if whole else "channels")
    values = Format(bits=4, group=8, along="channels")
    window = window if whole else 0
    view = a_view(tuple(counts))
    store = GroupedStore(view, keys, values, window)
    rows = [(view.k[row, :, m:], view.v[row, :, m:]) for row, m in enumerate(view.missing)]
    for n in steps:
        k, v = torch.randn(len(counts), 2, n, 16), torch.randn(len(counts), 2, n, 16)
        store.attend(torch.randn(len(counts), 4, n, 16), k, v, None)
        rows = [(torch.cat([a, k[i]], 1), torch.cat([b, v[i]], 1)) for i, (a, b) in enumerate(rows)]
    own_k, own_v = store.decoded()
    for row, (k, v) in enumerate(rows):
        n = k.shape[1]
        for own, x, form in ((own_k, k, keys), (own_v, v, values)):
            expected = Reference(form, window).held(x) if window else form.decode(form.encode(x))
            assert torch.equal(own[row, :, :n], expected)
        assert store.positions()[row, 0].tolist() == [*range(n), *[-1] * (own_k.shape[2] - n)]


def test_rows_that_leave_and_rows_that_are_named_twice() -> None:
    store = GroupedStore(
        a_view((20, 33, 9)), Format(bits=2, group=8, along="tokens"), Format(bits=2, group=8, along="channels"), 16
    )
    before = store.decoded()[0]
    store.take([2, 0, 2])
    after = store.decoded()[0]
    assert store.counts == [9, 20, 9]
    assert torch.equal(after[0, :, :9], before[2, :, :9]) and torch.equal(after[1], before[0, :, :20])
    store.attend(torch.randn(3, 4, 1, 16), torch.randn(3, 2, 1, 16), torch.randn(3, 2, 1, 16), None)
    assert store.counts == [10, 21, 10]


def test_codes_do_not_change_while_tokens_come() -> None:
    form = Format(bits=2, group=8, along="tokens")
    store = GroupedStore(a_view((33,)), form, Format(bits=2, group=8, along="channels"), 16)
    first = Packed(*(t.clone() for t in (store.keys.held.codes, store.keys.held.scale, store.keys.held.least)))
    values = store.values.held.codes.clone()
    for _ in range(100):
        store.attend(torch.randn(1, 4, 1, 16), 9 * torch.randn(1, 2, 1, 16), 9 * torch.randn(1, 2, 1, 16), None)
    assert store.keys.quantised(133) == 128 and store.values.quantised(133) == 117
    assert torch.equal(store.keys.held.codes[:, :, :8], first.codes)
    assert torch.equal(store.keys.held.scale[:, :, :4], first.scale)
    assert torch.equal(store.keys.held.least[:, :, :4], first.least)
    assert torch.equal(store.values.held.codes[:, :, :17], values)


# --- composition ---------------------------------------------------------------------------------------------------


class Plain(Codec):
    """Holds keys and values in 8 bits."""

    name = "plain"
    rounds = True

    def encode(self, view: HeldView) -> Store:
        form = Format(bits=8, group=16, along="channels")
        return GroupedStore(view, form, form, 0)

    def bytes_held(self, slots: int) -> int:
        return self.geometry.kv_heads * slots * 2 * (16 + 8)


class Uneven(RandomEviction):
    @property
    def shares_heads(self) -> SharesHeads:
        return self

    def allot(self, view: LayerView, scores: Tensor, allotment: Allotment) -> Allotment:
        return allotment


class UnevenBudget(RandomEviction):
    def budget(self, view: LayerView) -> Allotment:
        return Allotment(slots=[[20, 5] for _ in view.n_valid])


class WhileDecoding(RandomEviction):
    @property
    def steps(self) -> StepsDecode:
        return self

    def step(self, view: StepView) -> Tensor:
        return view.scores


class WholeModel(RandomEviction):
    @property
    def shares_layers(self) -> SharesLayers:
        return self

    def shares(self, layer: int) -> list[list[int]]:
        return [[20]] * (layer + 1)


class Streamed(RandomEviction):
    def stream(self, n_valid: int) -> Stream:
        return Stream(sinks=4, recent=16, in_cache=False)


def random(kind: type[Policy] = RandomEviction, budget: str | int = 20) -> Policy:
    chosen = Budget(tokens=budget) if isinstance(budget, int) else Budget(bytes_=int(budget))
    return kind(RandomOptions(budget=chosen))


@pytest.mark.parametrize(
    ("parts", "rule"),
    [
        ([random(), random()], "one selecting method"),
        ([Plain(None), Plain(None)], "one codec"),
        ([random(), Plain(None), Plain(None)], "one codec"),
        ([random(Uneven), Plain(None)], "equal heads"),
        ([random(WhileDecoding), Plain(None)], "decode eviction"),
        ([random(WholeModel), Plain(None)], "layer by layer"),
    ],
)
def test_parts_that_clash_are_refused_by_a_named_rule(parts: list[Any], rule: str) -> None:
    with pytest.raises(ModelError) as caught:
        compose(parts)
    assert f"rule: {rule}" in str(caught.value)
    assert caught.value.why and caught.value.hint


@pytest.mark.parametrize(("kind", "rule"), [(Streamed, "whole prefill"), (UnevenBudget, "equal heads")])
def test_clashes_that_show_with_a_model_are_refused_too(kind: type[Policy], rule: str) -> None:
    engine = Engine(toy_model("llama"))
    row = Row(ids=toy_prompts((50,), 128)[0], max_tokens=2, seed=0, eos_ids=frozenset())
    with pytest.raises(ModelError, match="cannot be stacked") as caught:
        list(engine.run([row], compose([random(kind), Plain(None)])))
    assert rule in str(caught.value)


@pytest.mark.parametrize("order", [1, -1])
def test_a_pair_has_the_budget_of_one_and_the_bytes_of_the_other(order: int) -> None:
    engine = Engine(toy_model("llama"))
    parts: list[Policy | Codec] = [random(), Plain(None)]
    policy = compose(parts[::order])
    row = Row(ids=toy_prompts((50,), 128)[0], max_tokens=2, seed=0, eos_ids=frozenset())
    ((_, result),) = engine.run([row], policy)
    assert result.error is None
    assert result.kv.kept == pytest.approx(20 / 50)
    assert result.kv.bytes_held == 3 * (2 * 20 * 2 * (16 + 8) + 2 * 20 * 4)
    assert result.kv.asked == "20 + "


def test_a_budget_in_bytes_counts_the_bytes_that_the_codec_takes() -> None:
    engine = Engine(toy_model("llama"))
    row = Row(ids=toy_prompts((100,), 128)[0], max_tokens=2, seed=0, eos_ids=frozenset())
    room = str(3 * 2 * 40 * 2 * 24)
    ((_, alone),) = engine.run([row], random(budget=room))
    ((_, pair),) = engine.run([row], compose([random(budget=room), Plain(None)]))
    assert pair.kv.kept == pytest.approx(40 / 100)
    assert alone.kv.kept == pytest.approx(15 / 100), "40 slots of 48 bytes are 15 of 128"


def test_rows_with_infinite_keys_fail_and_name_the_codec() -> None:
    model = toy_model("llama")
    engine = Engine(model)
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[0, 0] = float("inf")
    row = Row(ids=toy_prompts((50,), 128)[0], max_tokens=2, seed=0, eos_ids=frozenset())
    ((_, result),) = engine.run([row], compose([Plain(None)]))
    assert result.error is not None and "plain" in result.error and "layer 1" in result.error
