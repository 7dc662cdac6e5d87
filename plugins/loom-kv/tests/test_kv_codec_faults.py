"""The checks of codecs must reject faulty ones: one planted fault each, and the check that has to notice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from loom_kv import Codec, Format, GroupedStore, HeldView, Store, compose
from loom_kv.grouped import Part
from loom_kv.testing import CodecSubject, toy_model, toy_prompts, u8_isolation
from loom_kv.testing.codec_checks import c1_identity, c2_held_dense, c4_batch, c6_memory, c9_prefix, encoded_once
from torch import Tensor

from loom_core.api import Budget

PROMPTS = toy_prompts((97, 150, 64), 128)


@dataclass(frozen=True)
class Options:
    window: int = 16


class Sound(Codec):
    """A quantiser without a fault; the others spoil one thing each."""

    name = "sound"
    rounds = True
    keys = Format(bits=4, group=8, along="tokens")
    values = Format(bits=4, group=8, along="channels")

    def encode(self, view: HeldView) -> Store:
        return GroupedStore(view, self.keys, self.values, self.options.window)

    def bytes_held(self, slots: int) -> int:
        window = self.options.window
        whole = slots % window + min(slots, window)
        held = self.keys.bytes_held(slots - slots % window, 16, 4) + self.values.bytes_held(
            max(0, slots - window), 16, 4
        )
        total: int = 2 * (held + whole * 16 * 4)
        return total


class PaddingQuantised(Sound):
    """Groups of tokens begin at the batch's first column instead of the row's first token."""

    def encode(self, view: HeldView) -> Store:
        whole = HeldView(
            layer=view.layer,
            k=view.k,
            v=view.v,
            missing=(0,) * len(view.missing),
            kept=None,
            n_valid=view.n_valid,
            queries=None,
            scores=None,
            room=view.room,
        )
        store = GroupedStore(view, self.keys, self.values, self.options.window)
        shifted = GroupedStore(whole, self.keys, self.values, self.options.window)
        store.keys.held, store.values.held = shifted.keys.held, shifted.values.held
        return store


class Hoards(Sound):
    """Saves nothing: the keys as they were stay where no one counts them."""

    def encode(self, view: HeldView) -> Store:
        store: Any = super().encode(view)
        store.spare = view.k
        return store  # type: ignore[no-any-return]


class Forgets(Sound):
    """The formula leaves out the scales."""

    def bytes_held(self, slots: int) -> int:
        return int(0.9 * super().bytes_held(slots))


class Leaks(Sound):
    """Every prompt moves the keys of the next ones."""

    first = 0.0

    def encode(self, view: HeldView) -> Store:
        type(self).first += 0.1
        return super().encode(
            HeldView(
                layer=view.layer,
                k=view.k + type(self).first,
                v=view.v,
                missing=view.missing,
                kept=view.kept,
                n_valid=view.n_valid,
                queries=None,
                scores=None,
                room=view.room,
            )
        )


def subject(kind: type[Codec]) -> CodecSubject:
    return CodecSubject(toy_model("llama"), lambda budget: compose([kind(Options())]), PROMPTS, Budget(tokens=40))  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    "check", [c1_identity, c2_held_dense, c4_batch, c6_memory, u8_isolation, c9_prefix, encoded_once]
)
def test_the_sound_codec_passes(check: Any) -> None:
    check(subject(Sound))


@pytest.mark.parametrize(
    ("kind", "check", "words"),
    [
        (PaddingQuantised, c4_batch, "U4"),
        (Hoards, c6_memory, "does not count"),
        (Forgets, c6_memory, "by the formula"),
        (Leaks, u8_isolation, "U8"),
    ],
)
def test_a_planted_fault_is_noticed(kind: type[Codec], check: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check(subject(kind))


def test_what_is_quantised_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    append = Part.append

    def again(self: Part, x: Tensor, counts: Sequence[int]) -> None:
        """Open everything, let the groups end at the newest quantised token, and close it again."""
        append(self, x, counts)
        end = self.quantised(counts[0] + 1)
        if self.form.along == "tokens" and end:
            opened = self.form.decode(self.held)[:, :, :end]
            self.held = self.form.encode(opened.roll(counts[0] % 8, dims=2))
            closed = self.form.decode(self.held).roll(-(counts[0] % 8), dims=2)
            self.held = self.form.encode(closed)

    monkeypatch.setattr(Part, "append", again)
    with pytest.raises(AssertionError, match="encoded"):
        encoded_once(subject(Sound))


def test_a_view_of_the_dense_keys_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(self: Part, x: Tensor, *rest: Any) -> None:
        init(self, x, *rest)
        self.recent = x.narrow(2, 0, self.recent.shape[2]) if x.shape[2] > 16 else self.recent

    init = Part.__init__
    monkeypatch.setattr(Part, "__init__", lazy)
    with pytest.raises(AssertionError, match="U6"):
        c6_memory(subject(Sound))


def test_attention_that_is_not_over_what_is_held_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = GroupedStore.decoded

    def other(self: GroupedStore) -> tuple[Tensor, Tensor]:
        k, v = decoded(self)
        return k + 0.05 * torch.ones_like(k), v

    monkeypatch.setattr(GroupedStore, "decoded", other)
    with pytest.raises(AssertionError, match="U2"):
        c2_held_dense(subject(Sound))
