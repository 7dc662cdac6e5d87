"""Ragged storage against the padded one: the same attention, fewer bytes, rows that leave, heads that keep nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from loom_kv import Allotment, DenseStore, LayerView, Policy, SharesHeads
from loom_kv.choose import Choice, choose
from loom_kv.ragged import RaggedStore, uneven
from loom_kv.testing import CHECKS, Subject, fixed_tokens, toy_model, toy_prompts
from loom_server_hf.engine import Row
from loom_server_hf.host import attached
from loom_server_hf.masked import masked_dense
from torch import Tensor

from loom_core.api import Budget

PROMPTS = toy_prompts((97, 150, 64), 128)


@dataclass(frozen=True)
class Options:
    budget: Budget


class Uneven(Policy):
    """A quarter of the budget for the first head, the rest for the others; the newest tokens."""

    name = "uneven"

    def score(self, view: LayerView) -> Tensor:
        return view.positions.float().expand(-1, view.k.shape[1], -1)

    @property
    def shares_heads(self) -> SharesHeads:
        return self

    def allot(self, view: LayerView, scores: Tensor, allotment: Allotment) -> Allotment:
        rows = []
        for n in view.n_valid:
            heads = view.k.shape[1]
            total, small = heads * min(n, self.slots(n)), self.slots(n) // 4
            rest = (total - small) // (heads - 1)
            rows.append([n] * heads if n <= self.slots(n) else [small] + [min(n, rest)] * (heads - 1))
        return Allotment(slots=rows)


def subject(kind: str = "llama", dtype: torch.dtype = torch.float32) -> Subject:
    return Subject(toy_model(kind, dtype), lambda budget: Uneven(Options(budget)), PROMPTS, Budget(tokens=48))


SUBJECTS: dict[Any, Subject] = {}


@pytest.mark.parametrize(
    ("kind", "dtype"), [("llama", torch.float32), ("mha", torch.float32), ("qwen3", torch.bfloat16)]
)
@pytest.mark.parametrize("check", CHECKS)
def test_uneven_heads_pass_every_check(check: str, kind: str, dtype: torch.dtype) -> None:
    tested = SUBJECTS.setdefault((kind, dtype), subject(kind, dtype))
    CHECKS[check](tested)


def filled(n_valid: list[int], heads: int, dim: int = 8) -> DenseStore:
    store = DenseStore(n_valid, room=4)
    rows, width = len(n_valid), max(n_valid)
    store.attend(*tokens(rows, width, heads, dim), None)
    return store


def tokens(rows: int, n: int, heads: int = 2, dim: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries, keys and values of n tokens, two query heads a KV head."""
    return torch.randn(rows, 2 * heads, n, dim), torch.randn(rows, heads, n, dim), torch.randn(rows, heads, n, dim)


def chosen(n_valid: list[int], slots: list[list[int]]) -> Choice:
    scores = torch.rand(len(n_valid), len(slots[0]), max(n_valid))
    choice = choose(scores, n_valid, Allotment(slots=slots))
    assert choice is not None
    return choice


def pair(n_valid: list[int], slots: list[list[int]]) -> tuple[DenseStore, RaggedStore]:
    """The same slots padded and ragged."""
    torch.manual_seed(0)
    dense, choice = filled(n_valid, len(slots[0])), chosen(n_valid, slots)
    ragged = RaggedStore(dense, choice)
    dense.keep(choice)
    return dense, ragged


@pytest.mark.parametrize("slots", [[[3, 12], [5, 5]], [[0, 9], [7, 1]], [[20, 1], [13, 0]]])
def test_ragged_attention_equals_padded(slots: list[list[int]]) -> None:
    n_valid = [20, 13]
    dense, ragged = pair(n_valid, slots)
    for n in (1, 5, 1, 1, 3):
        q, k, v = tokens(2, n)
        expected = dense.attend(q, k, v, 0.4)
        assert torch.allclose(ragged.attend(q, k, v, 0.4), expected, atol=1e-5)
        assert torch.allclose(ragged.attend_padded(q, 0.4), expected, atol=1e-5), "the way of other devices"
    assert sets(dense.positions()) == sets(ragged.positions())


def sets(positions: Tensor) -> list[list[list[int]]]:
    return [[[p for p in head if p >= 0] for head in row] for row in positions.tolist()]


@pytest.mark.parametrize("rows", [[0], [1], [1, 0], [0, 0, 1]])
def test_rows_leave_and_may_be_repeated(rows: list[int]) -> None:
    dense, ragged = pair([20, 13], [[3, 12], [9, 5]])
    new = tokens(2, 2)
    dense.attend(*new, None)
    ragged.attend(*new, None)
    before = sets(ragged.positions())
    ragged.take(rows)
    assert sets(ragged.positions()) == [before[row] for row in rows]
    q, k, v = tokens(2, 1)
    expected = dense.attend(q, k, v, None)[rows]
    assert torch.allclose(ragged.attend(q[rows], k[rows], v[rows], None), expected, atol=1e-5)


def test_bytes_are_those_of_the_kept_slots() -> None:
    slots = [[3, 12], [9, 5]]
    _, ragged = pair([20, 13], slots)
    held = sum(t.untyped_storage().nbytes() for t in ragged.tensors())
    assert held == 29 * (8 * 4 + 8 * 4 + 4) + 4 * 2 * 8, "a start and a width for each of four heads"
    for _ in range(6):
        ragged.attend(*tokens(2, 1), None)
    assert ragged.tail_k.shape[2] == 8, "grows by `room` tokens"


def test_only_uneven_heads_are_stored_ragged() -> None:
    assert uneven(chosen([100], [[50, 20]]))
    assert not uneven(chosen([100], [[50, 50]]))
    assert not uneven(chosen([100], [[50, 49]])), "one slot in a hundred is not worth it"
    assert not uneven(chosen([100, 60], [[50, 50], [25, 25]])), "rows of a batch may differ"


def test_several_tokens_at_once_equal_single_ones() -> None:
    tested = subject()
    tokens = torch.cat(fixed_tokens(3, tested.engine), dim=1)
    steps = tested.run(PROMPTS, tested.make(tested.budget)).steps
    expected = torch.stack(
        [
            masked_dense(tested.model, prompt, [step[row] for step in steps], fixed_tokens(1, tested.engine))[-1]
            for row, prompt in enumerate(PROMPTS)
        ]
    )
    for split in ([6], [2, 4], [1, 5]):
        with attached(tested.model):
            batch = tested.engine.start(PROMPTS, [0, 0, 0], tested.make(tested.budget))
            batch.prefill()
            logits = [batch.feed(part) for part in torch.split(tokens, split, dim=1)][-1]
        tested.agree(logits, expected, f"split {split}")


def test_the_layers_of_those_checks_are_ragged() -> None:
    tested = subject()
    trace = tested.run(PROMPTS, tested.make(tested.budget))
    assert all(isinstance(store, RaggedStore) for store in trace.batch.session.stores)


def test_the_share_kept_is_the_mean_over_heads() -> None:
    tested = subject()
    row = Row(ids=PROMPTS[0], max_tokens=2, seed=0, eos_ids=frozenset())
    (_, result) = next(iter(tested.engine.run([row], tested.make(tested.budget))))
    assert result.kv.kept == pytest.approx(48 / 97, abs=1e-6)
    assert result.kv.bytes_held == 3 * 2 * (48 * (2 * 16 * 4 + 4) + 2 * 8)
