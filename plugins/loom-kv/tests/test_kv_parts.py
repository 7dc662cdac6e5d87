"""The parts of the KV host against plain references: the choice of slots, attention with gaps, sampling."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from loom_kv import Allotment, DenseStore, attend_many
from loom_kv.attention import attend_masked, attend_one
from loom_kv.choose import choose
from torch import Tensor

SCORES = st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0, -1.0])


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, list[int], Allotment]:
    rows, heads = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    columns = draw(st.integers(1, 12))
    n_valid = [draw(st.integers(1, columns)) for _ in range(rows)]
    n_valid[0] = columns
    first, last = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    slots = [[draw(st.integers(max(1, first + last), 13)) for _ in range(heads)] for _ in range(rows)]
    values = draw(st.lists(SCORES, min_size=rows * heads * columns, max_size=rows * heads * columns))
    return torch.tensor(values).view(rows, heads, columns), n_valid, Allotment(slots=slots, first=first, last=last)


@settings(max_examples=150, deadline=None)
@given(problems())
def test_choice_equals_a_plain_sort(problem: tuple[Tensor, list[int], Allotment]) -> None:
    scores, n_valid, allotment = problem
    choice = choose(scores, n_valid, allotment)
    columns = scores.shape[2]
    for row, n in enumerate(n_valid):
        for head in range(scores.shape[1]):
            places = list(range(columns - n, columns))
            sure = set(places[: allotment.first]) | set(places[n - min(n, allotment.last) :])
            ranked = sorted(places, key=lambda p: (p in sure, float(scores[row, head, p]), p), reverse=True)
            expected = sorted(ranked[: allotment.slots[row][head]])  # type: ignore[index]
            if choice is None:
                assert expected == places
                continue
            empty = 0 if choice.missing is None else int(choice.missing[row, head])
            assert choice.index[row, head, empty:].tolist() == expected


def naive(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scaling: float) -> Tensor:
    """Softmax attention with a mask [b, h, n, N]; queries that see nothing give zero."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    logits = (q @ k.transpose(2, 3) * scaling).masked_fill(~visible.repeat_interleave(group, 1), -math.inf)
    return (logits.softmax(-1).nan_to_num() @ v).transpose(1, 2)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("past", [0, 5])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_with_gaps_and_padding(heads: int, past: int, padded: bool) -> None:
    torch.manual_seed(0)
    n, rows, group = 6, 3, 3
    q = torch.randn(rows, heads * group, n, 8)
    k, v = torch.randn(rows, heads, past + n, 8), torch.randn(rows, heads, past + n, 8)
    pads = torch.tensor([0, 2, 6 if past else 4]) if padded else None
    missing = torch.tensor([0, 3, past])[:, None] if past else torch.zeros(3, 1, dtype=torch.int64)
    column = torch.arange(past + n)
    empty = column < missing[..., None]
    visible = (column[None, :] <= past + torch.arange(n)[:, None])[None, None] & ~empty[:, :, None]
    real = torch.ones(rows, n, dtype=torch.bool)
    if pads is not None:
        real = torch.arange(n) >= pads[:, None]
        hidden = torch.cat([torch.zeros(rows, past, dtype=torch.bool), ~real], dim=1)
        visible = visible & ~hidden[:, None, None]
    bias = torch.zeros(rows, 1, 1, past + n).masked_fill(empty[:, :, None], torch.finfo(torch.float32).min)
    expected = naive(q, k, v, visible.expand(rows, heads, n, past + n), 0.3)
    for attend in (attend_many, attend_masked):
        out = attend(q, k, v, bias if past else None, pads, 0.3)
        assert torch.isfinite(out).all()
        assert torch.allclose(out[real], expected[real], atol=1e-5), attend.__name__
    if pads is None:
        one = attend_one(q[:, :, -1:], k, v, bias, 0.3)
        assert torch.allclose(one, expected[:, -1:], atol=1e-5)


def test_growth_keeps_no_old_storage_and_room_is_bounded() -> None:
    torch.manual_seed(0)
    store = DenseStore([10, 7], room=4)

    def feed(n: int) -> None:
        store.attend(torch.randn(2, 4, n, 8), torch.randn(2, 2, n, 8), torch.randn(2, 2, n, 8), None)

    feed(6)
    feed(4)
    assert store.k.untyped_storage().nbytes() == 2 * 2 * 10 * 8 * 4
    before = store.k[:, :, :10].clone()
    sizes = set()
    for _ in range(9):
        feed(1)
        sizes.add(store.k.shape[2])
    assert torch.equal(store.k[:, :, :10], before)
    assert sizes == {14, 18, 22}
    assert store.positions()[1, 0].tolist() == [-1, -1, -1, *range(16)]
    store.take([1])
    assert store.positions()[0, 0].tolist() == list(range(16))
    assert store.bias is None
