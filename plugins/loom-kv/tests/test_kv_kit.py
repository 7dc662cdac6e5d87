"""The kit that `loom check` runs: a sound method passes, each planted fault is rejected by the rule it breaks."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from loom_kv import (
    Allotment,
    DenseStore,
    LayerView,
    Need,
    ObservesQueries,
    Policy,
    QueryChunk,
    Session,
    choose as choose_module,
    group_reduce,
    session,
    window_attention,
)
from loom_kv.choose import Choice
from loom_kv.grouped import Part
from loom_kv.testing import Host, installed_host, kit, toy_model
from torch import Tensor
from torch.nn import functional

from loom_core.api import AugmentationSpec, Budget, Found, installed, option

WINDOW = 8
MODULE = "loom_test_methods"
Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Options:
    """A budget."""

    budget: Budget = option(Budget(tokens=100), help="slots")


class Sound(Policy):
    """A window method without a fault; the others spoil one thing each."""

    name = "sound"

    @property
    def need(self) -> Need:
        return Need(window=WINDOW)

    @property
    def last(self) -> int:
        return WINDOW

    def score(self, view: LayerView) -> Tensor:
        return functional.pad(group_reduce(self.mass(view), "mean"), (0, WINDOW))

    def mass(self, view: LayerView) -> Tensor:
        return window_attention(view)[..., : view.columns - WINDOW].sum(dim=3)


class PaddingScored(Sound):
    """The score depends on the column, padding included."""

    def score(self, view: LayerView) -> Tensor:
        return super().score(view) * torch.arange(view.columns)


class StateLeaked(Sound):
    """What one prompt left behind decides about the next."""

    seen = 0

    def mass(self, view: LayerView) -> Tensor:
        type(self).seen += 1
        return super().mass(view) + (torch.arange(view.columns - WINDOW) % 7 == type(self).seen % 7)


class BudgetOff(Sound):
    """The window is kept on top of the budget."""

    def budget(self, view: LayerView) -> Allotment:
        return Allotment(slots=[self.slots(n) + WINDOW for n in view.n_valid], last=WINDOW)


class SlotsOff(Sound):
    """Allows itself one slot more than the user's budget."""

    def slots(self, n_valid: int) -> int:
        return super().slots(n_valid) + 1


class FakeSaving(Sound):
    """Keeps everything, and allows itself to."""

    def budget(self, view: LayerView) -> Allotment:
        return Allotment(slots=view.n_valid)

    def most_slots(self, n_valid: int) -> int:
        return n_valid * self.geometry.layers * self.geometry.kv_heads


class GroupRuleWrong(Sound):
    """Query heads of a group count unequally."""

    def mass(self, view: LayerView) -> Tensor:
        mass = super().mass(view)
        return mass + torch.arange(mass.shape[2])[:, None] * (torch.arange(mass.shape[3]) % 5 == 0)


class SharesWrongly(Sound):
    """Looks at every query, and says that a prefix may be read without it."""

    @property
    def observes(self) -> ObservesQueries:
        return self

    @property
    def shares_prefix(self) -> bool:
        return True

    def start(self, geometry: Any) -> None:
        super().start(geometry)
        self.total: dict[int, Tensor] = {}

    def observe(self, chunk: QueryChunk) -> None:
        real = (chunk.positions >= 0)[:, None, :, None]
        seen = (chunk.queries * real).sum(dim=2)
        self.total[chunk.layer] = self.total.get(chunk.layer, 0) + seen

    def score(self, view: LayerView) -> Tensor:
        mean = self.total[view.layer].view(view.k.shape[0], view.k.shape[1], -1, view.k.shape[3]).mean(dim=2)
        return (view.k.float() @ mean[..., None])[..., 0]


METHODS = (Sound, PaddingScored, StateLeaked, BudgetOff, SlotsOff, FakeSaving, GroupRuleWrong, SharesWrongly)


def toys(host: Host) -> tuple[tuple[str, Any], ...]:
    """One model in place of all."""
    return (("toy", toy_model("llama")),)


@pytest.fixture
def found(monkeypatch: Patch) -> Callable[..., Found[AugmentationSpec]]:
    """Makes one of the classes above a registered method."""
    module = types.ModuleType(MODULE)
    for kind in METHODS:
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setattr(kit, "kit_models", toys)

    def make(kind: type[Policy], **declared: Any) -> Found[AugmentationSpec]:
        spec = AugmentationSpec(
            name=kind.__name__,
            version="1",
            summary="",
            factory=f"{MODULE}:{kind.__name__}",
            kind="model",
            options=Options,
            **{"saves": "real", "query_aware": True, **declared},
        )
        return Found(spec, "loom-accel-test", "0")

    return make


def verdict(found: Found[AugmentationSpec], rule: str) -> str:
    """What the kit says of one rule: "" where it holds."""
    trial = kit.trial_of(found, installed_host())
    subjects = [(label, trial.subject(model)) for label, model in kit.kit_models(trial.host)]
    row = kit.outcome(found.spec.name, rule, kit.checks_of(trial)[rule], subjects)
    return "" if row.passed else row.why


def test_the_sound_method_passes_every_rule(found: Callable[..., Any]) -> None:
    rows = list(kit.check(found(Sound)))
    assert [f"{row.check}: {row.why}" for row in rows if not row.passed] == []
    checked = {row.check.partition(" ")[0] for row in rows}
    assert {f"U{number}" for number in range(1, 10)} <= checked


FAULTS = (
    (PaddingScored, "U4 batch"),
    (StateLeaked, "U8 isolation"),
    (BudgetOff, "U6 memory"),
    (SlotsOff, "U6 memory"),
    (FakeSaving, "declares saves"),
    (GroupRuleWrong, "U7 groups"),
    (SharesWrongly, "U9 shared prefix"),
)


@pytest.mark.parametrize(("kind", "rule"), FAULTS, ids=[kind.__name__ for kind, _ in FAULTS])
def test_a_faulty_method_is_rejected(kind: type[Policy], rule: str, found: Callable[..., Any]) -> None:
    assert verdict(found(Sound), rule) == ""
    assert verdict(found(kind), rule)


def test_a_rejected_method_is_a_failed_row(found: Callable[..., Any]) -> None:
    failed = {row.check: row.why for row in kit.check(found(BudgetOff)) if not row.passed}
    assert set(failed) == {"U6 memory"} and "toy: U6:" in failed["U6 memory"]


@pytest.mark.parametrize(
    ("declared", "rule"),
    [({"query_aware": False}, "declares query_aware"), ({"saves": "simulated"}, "declares saves")],
    ids=["query_aware", "saves"],
)
def test_a_wrong_declaration_is_rejected(declared: dict[str, Any], rule: str, found: Callable[..., Any]) -> None:
    assert verdict(found(Sound), rule) == ""
    assert "is declared" in verdict(found(Sound, **declared), rule)


# --- faults of the host, as a method that brings its own store could have them ---------------------------------------


def test_chunk_dependence_is_rejected(found: Callable[..., Any], monkeypatch: Patch) -> None:
    read = Session._read

    def forgetful(self: Session, layer: int, q: Tensor, scaling: float | None) -> None:
        self.newest.clear()
        read(self, layer, q, scaling)

    monkeypatch.setattr(Session, "_read", forgetful)
    assert "U5" in verdict(found(Sound), "U5 chunks")


def test_a_view_kept_alive_is_rejected(found: Callable[..., Any], monkeypatch: Patch) -> None:
    keep = DenseStore.keep

    def lazy(self: DenseStore, choice: Choice, spare: int = 0) -> None:
        whole = self.k
        keep(self, choice, spare)
        whole[:, :, : self.k.shape[2]] = self.k
        self.k = whole[:, :, : self.k.shape[2]]

    monkeypatch.setattr(DenseStore, "keep", lazy)
    assert "U6" in verdict(found(Sound), "U6 memory")


def test_slots_that_are_hidden_and_not_freed_are_rejected(found: Callable[..., Any], monkeypatch: Patch) -> None:
    """Saves nothing: evicted keys and values lie on in front of the kept ones, out of sight."""
    keep = DenseStore.keep

    def hides(self: DenseStore, choice: Choice, spare: int = 0) -> None:
        evicted = self.length - choice.index.shape[2]
        k, v = self.k, self.v
        keep(self, choice, spare)
        assert self.kept is not None
        self.k, self.v = torch.cat([k[:, :, :evicted], self.k], 2), torch.cat([v[:, :, :evicted], self.v], 2)
        self.kept = functional.pad(self.kept, (evicted, 0))
        self.missing = torch.full((k.shape[0], 1), evicted) + (0 if self.missing is None else self.missing)
        self.length = self.capacity = self.k.shape[2]
        self._hide()

    monkeypatch.setattr(DenseStore, "keep", hides)
    assert verdict(found(Sound), "U2 masked dense") == "", "the premise: its answers are those of the method"
    assert "U6" in verdict(found(Sound), "U6 memory")


def test_shifted_positions_are_rejected(found: Callable[..., Any], monkeypatch: Patch) -> None:
    keep = DenseStore.keep

    def shifted(self: DenseStore, choice: Choice, spare: int = 0) -> None:
        keep(self, choice, spare)
        self.k = self.k.roll(1, dims=2)

    monkeypatch.setattr(DenseStore, "keep", shifted)
    assert "U2" in verdict(found(Sound), "U2 masked dense")


def test_unsorted_slots_are_rejected(found: Callable[..., Any], monkeypatch: Patch) -> None:
    choose = choose_module.choose

    def flipped(*arguments: Any) -> Choice | None:
        choice = choose(*arguments)
        return None if choice is None else Choice(choice.index.flip(-1), choice.missing)

    monkeypatch.setattr(session, "choose", flipped)
    assert "not sorted" in verdict(found(Sound), "U2 masked dense")


def test_what_is_quantised_again_is_rejected(monkeypatch: Patch) -> None:
    if "kivi" not in installed().augmentations or "loom-tiny" not in installed().models:
        pytest.skip("needs a quantising method and a model whose heads its groups divide")
    method, append = installed().augmentations.get("kivi"), Part.append
    embedded = [pair for pair in kit.kit_models(installed_host()) if pair[0] == "loom-tiny"]
    monkeypatch.setattr(kit, "kit_models", lambda host: embedded)
    assert verdict(method, "encoded once") == ""

    def again(self: Part, x: Tensor, counts: Sequence[int]) -> None:
        """Open everything and close it again, its groups begun elsewhere."""
        append(self, x, counts)
        if self.form.along == "tokens" and self.quantised(counts[0] + 1):
            opened = self.form.decode(self.held)[:, :, : self.quantised(counts[0] + 1)]
            closed = self.form.encode(opened.roll(counts[0] % 8, dims=2))
            self.held = self.form.encode(self.form.decode(closed).roll(-(counts[0] % 8), dims=2))

    monkeypatch.setattr(Part, "append", again)
    assert "encoded" in verdict(method, "encoded once")


# --- what the kit says when it cannot judge --------------------------------------------------------------------------


def test_a_method_that_raises_is_a_failed_row(found: Callable[..., Any], monkeypatch: Patch) -> None:
    def broken(self: Sound, view: LayerView) -> Tensor:
        raise KeyError("a bug")

    monkeypatch.setattr(Sound, "mass", broken)
    rows = list(kit.check(found(Sound)))
    assert not rows[-1].passed and rows[-1].check == "runs" and "KeyError: 'a bug'" in rows[-1].why


def test_prompts_grow_with_what_a_method_protects(found: Callable[..., Any], monkeypatch: Patch) -> None:
    monkeypatch.setattr(Sound, "last", 70)
    trial = kit.trial_of(found(Sound), installed_host())
    assert (trial.scale, trial.budget) == (2, Budget(tokens=96))
    monkeypatch.setattr(Sound, "last", 1000)
    (row,) = kit.check(found(Sound))
    assert not row.passed and "1000 slots are always kept" in row.why
