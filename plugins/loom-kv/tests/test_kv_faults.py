"""The conformance checks must reject faulty methods: one planted fault each, and the check that has to notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from loom_kv import Allotment, DenseStore, LayerView, Need, Policy, Session, group_reduce, window_attention
from loom_kv.testing import (
    Subject,
    toy_model,
    toy_prompts,
    u2_masked_dense,
    u4_batch,
    u5_chunks,
    u6_memory,
    u7_groups,
    u8_isolation,
)
from torch import Tensor
from torch.nn import functional

from loom_core.api import Budget

PROMPTS = toy_prompts((97, 150, 64), 128)
BUDGET = Budget(tokens=40)


@dataclass(frozen=True)
class Options:
    budget: Budget


class Sound(Policy):
    """A window method without a fault; the others spoil one thing each."""

    name = "sound"

    @property
    def need(self) -> Need:
        return Need(window=8)

    @property
    def last(self) -> int:
        return 8

    def score(self, view: LayerView) -> Tensor:
        return functional.pad(group_reduce(self.mass(view), "mean"), (0, 8))

    def mass(self, view: LayerView) -> Tensor:
        return window_attention(view)[..., : view.columns - 8].sum(dim=3)


class PaddingScored(Sound):
    def score(self, view: LayerView) -> Tensor:
        return super().score(view) * torch.arange(view.columns)


class StateLeaked(Sound):
    seen = 0

    def mass(self, view: LayerView) -> Tensor:
        type(self).seen += 1
        return super().mass(view) + (torch.arange(view.columns - 8) % 7 == type(self).seen % 7)


class BudgetOff(Sound):
    def budget(self, view: LayerView) -> Allotment:
        allotment = super().budget(view)
        return Allotment(slots=[slots + 8 for slots in allotment.slots], last=8)  # type: ignore[operator]


class GroupRuleWrong(Sound):
    def mass(self, view: LayerView) -> Tensor:
        mass = super().mass(view)
        return mass + torch.arange(mass.shape[2])[:, None] * (torch.arange(mass.shape[3]) % 5 == 0)


def subject(kind: type[Policy]) -> Subject:
    return Subject(toy_model("llama"), lambda budget: kind(Options(budget)), PROMPTS, BUDGET)


CHECKS: dict[str, Callable[[Subject], None]] = {"U4": u4_batch, "U6": u6_memory, "U8": u8_isolation}


@pytest.mark.parametrize("check", [u2_masked_dense, u4_batch, u5_chunks, u6_memory, u8_isolation])
def test_the_sound_method_passes(check: Callable[[Subject], None]) -> None:
    check(subject(Sound))


@pytest.mark.parametrize(("kind", "check"), [(PaddingScored, "U4"), (BudgetOff, "U6"), (StateLeaked, "U8")])
def test_a_planted_fault_is_noticed(kind: type[Policy], check: str) -> None:
    with pytest.raises(AssertionError, match=check):
        CHECKS[check](subject(kind))


def test_a_wrong_group_rule_is_noticed() -> None:
    u7_groups(lambda budget: Sound(Options(budget)), BUDGET, PROMPTS[0])
    with pytest.raises(AssertionError, match="U7"):
        u7_groups(lambda budget: GroupRuleWrong(Options(budget)), BUDGET, PROMPTS[0])


def test_chunk_dependence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Session._read

    def forgetful(self: Session, layer: int, q: Tensor, scaling: float | None) -> None:
        self.newest.clear()
        read(self, layer, q, scaling)

    monkeypatch.setattr(Session, "_read", forgetful)
    with pytest.raises(AssertionError, match="U5"):
        u5_chunks(subject(Sound))


def test_a_view_kept_alive_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = DenseStore.keep

    def lazy(self: DenseStore, choice: Any) -> None:
        whole = self.k
        keep(self, choice)
        whole[:, :, : self.k.shape[2]] = self.k
        self.k = whole[:, :, : self.k.shape[2]]

    monkeypatch.setattr(DenseStore, "keep", lazy)
    with pytest.raises(AssertionError, match="U6"):
        u6_memory(subject(Sound))


def test_shifted_positions_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = DenseStore.keep

    def shifted(self: DenseStore, choice: Any) -> None:
        keep(self, choice)
        self.k = self.k.roll(1, dims=2)

    monkeypatch.setattr(DenseStore, "keep", shifted)
    with pytest.raises(AssertionError, match="U2"):
        u2_masked_dense(subject(Sound))
