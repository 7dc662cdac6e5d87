"""How the slots that a policy keeps are held: quantised, or with fewer channels. Knows tensors, no model, no text.

A method part is a `Policy` (which slots are kept) or a `Codec` (how they are held). An arm may have one of each; a
codec alone holds every slot. The host calls `encode` once per layer and prompt, after the layer's prefill attention and
after the policy's eviction; the store that it returns appends and attends from then on. A codec never sees a module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from loom_core.api import Budget, ModelError, Saves
from loom_server_hf.kv.choose import Choice, protect
from loom_server_hf.kv.policy import Allotment, Geometry, LayerView, Need, Policy
from loom_server_hf.kv.store import DenseStore, Store

LONG = 2**30
"""Tokens of a prompt that is longer than any budget."""
UNEVEN = "the heads of a layer may keep unequal numbers of slots, and a codec holds them in one block"
EQUAL = "a method that keeps as many slots in every head"
ONE_SHOT = "a method that evicts each layer once, at the end of the prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldView:
    """The slots of one layer at the end of the prompt, read-only; those of each row are the last ones.

    k, v: [b, h, K, d], keys after RoPE. missing: how many of the K are empty at the left of each row. kept: positions
    [b, h or 1, K], int32, None where nothing was evicted. n_valid: prompt tokens of each row. queries: the newest
    `need.window` queries [b, H, w, d]. scores: the policy's, float32 [b, h or 1, K], infinite on protected slots; None
    where the codec does not ask (`ranked`) or no policy ranks. room: tokens that storages grow by while decoding.
    """

    layer: int
    k: Tensor
    v: Tensor
    missing: tuple[int, ...]
    kept: Tensor | None
    n_valid: tuple[int, ...]
    queries: Tensor | None
    scores: Tensor | None
    room: int

    @property
    def counts(self) -> list[int]:
        """Slots of each row."""
        return [self.k.shape[2] - missing for missing in self.missing]

    def unsound(self) -> Tensor:
        """bool [b], True for rows with a NaN or an infinity among keys and values."""
        totals = self.k.sum((1, 2, 3), dtype=torch.float32) + self.v.sum((1, 2, 3), dtype=torch.float32)
        return ~torch.isfinite(totals)

    def empty(self) -> Tensor | None:
        """bool [b, 1, K], True on empty slots; None where there are none."""
        if not any(self.missing):
            return None
        missing = torch.tensor(self.missing, device=self.k.device)
        return (torch.arange(self.k.shape[2], device=self.k.device) < missing[:, None])[:, None]

    def left(self, x: Tensor) -> Tensor:
        """x [b, h or 1, K, ...] with the slots of each row moved to the left; what follows them means nothing."""
        if not any(self.missing):
            return x
        return torch.stack([row.roll(-missing, dims=1) for row, missing in zip(x, self.missing, strict=True)])


@dataclass
class Codec:
    """Base of all codecs. options: the codec's frozen dataclass.

    name: of the method. saves: whether memory is really freed. rounds: noise in the last bit of a key may move a
    held value by a whole step of its format. ranked: `encode` looks at the policy's scores.
    """

    options: Any
    geometry: Geometry = field(init=False)

    name: ClassVar[str] = ""
    saves: ClassVar[Saves] = "real"
    rounds: ClassVar[bool] = False

    @property
    def need(self) -> Need:
        """What `encode` will look at; only `window` may be set."""
        return Need()

    @property
    def ranked(self) -> bool:
        """Whether `encode` looks at the policy's scores."""
        return False

    @property
    def asked(self) -> str:
        """What the user asked for, in a few words."""
        return ""

    def start(self, geometry: Geometry) -> None:
        """Forget everything: a new batch begins. Raises ModelError where this model cannot be held so."""
        self.geometry = geometry

    def encode(self, view: HeldView) -> Store:
        """The store that holds these slots from now on."""
        raise NotImplementedError

    def bytes_held(self, slots: int) -> int:
        """The formula: bytes of one layer of one prompt with `slots` slots in each KV head, positions not counted."""
        raise NotImplementedError

    def notes(self, slots: int) -> tuple[str, ...]:
        """Fall-backs taken where `slots` slots are kept, for the user to read."""
        return ()

    def slots(self, bytes_: int) -> int:
        """Slots per KV head that these bytes of all layers hold, by the formula; at least one."""
        low, high = 1, 2
        while self.geometry.layers * self.bytes_held(high) <= bytes_:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.geometry.layers * self.bytes_held(middle) <= bytes_
            low, high = (middle, high) if fits else (low, middle)
        return low

    def check_policy(self, policy: Policy) -> None:
        """Refuse a policy that cuts the cache while the prompt is read. Raises ModelError."""
        if policy.stream(LONG) is not None:
            raise _clash(
                f"{policy.name} and {self.name}",
                "whole prefill",
                f"{policy.name} cuts the cache while the prompt is read, and {self.name} encodes it at the end",
                "a form that evicts after the prefill",
            )

    def identity(self) -> Codec | None:
        """This codec at the setting that changes no number; None where there is none."""
        return None

    def refuse(self, rule: str, why: str, hint: str) -> ModelError:
        """The error of a model that breaks a rule of this codec."""
        what = f"{self.name} cannot hold this model's keys and values"
        return ModelError(what, where=f"rule: {rule}", why=why, hint=hint)


class KeepAll(Policy):
    """The policy of a codec that stands alone: nothing is evicted."""

    @property
    def name(self) -> str:  # type: ignore[override]
        """The codec's."""
        return self.codec.name if self.codec is not None else "all"

    @property
    def saves(self) -> Saves:  # type: ignore[override]
        """The codec's."""
        return self.codec.saves if self.codec is not None else "none"

    @property
    def asked(self) -> Budget:
        """Everything."""
        return Budget(ratio=1.0)

    @property
    def request(self) -> str:
        """What the codec was asked for."""
        return self.codec.asked if self.codec is not None else ""

    def notes(self, n_valid: int) -> tuple[str, ...]:
        """The codec's."""
        return self.codec.notes(n_valid) if self.codec is not None else ()

    def budget(self, view: LayerView) -> Allotment:
        """All there is."""
        return Allotment(slots=view.n_valid)


def compose(parts: Sequence[Policy | Codec]) -> Policy | None:
    """One method of an arm's parts; None without any. Raises ModelError, which names the rule, for parts that clash."""
    policies = [part for part in parts if isinstance(part, Policy)]
    codecs = [part for part in parts if isinstance(part, Codec)]
    names = " and ".join(part.name for part in parts)
    for many, rule, why in (
        (policies, "one selecting method", "each decides alone which slots are kept"),
        (codecs, "one codec", "each decides alone how the kept slots are held"),
    ):
        if len(many) > 1:
            raise _clash(names, rule, why, "give them as two arms")
    if not codecs:
        return policies[0] if policies else None
    policy = policies[0] if policies else KeepAll(None)
    for clashes, rule, why, hint in (
        (type(policy).allot is not Policy.allot, "equal heads", UNEVEN, EQUAL),
        (policy.need.decode, "decode eviction", "what is encoded is never evicted from again", ONE_SHOT),
        (policy.need.whole_model, "layer by layer", "later layers evict again from those that are encoded", ONE_SHOT),
    ):
        if clashes:
            raise _clash(names, rule, why, hint)
    policy.codec = codecs[0]
    return policy


def held_view(store: Store, layer: int, queries: Tensor | None, scores: Tensor | None, codec: Codec) -> HeldView:
    """What a codec sees of a layer. Raises ModelError where the heads of a row hold unequal numbers of slots."""
    uneven = not isinstance(store, DenseStore)
    if isinstance(store, DenseStore):
        missing = [[0]] * len(store.n_valid) if store.missing is None else store.missing.tolist()
        uneven = any(len(set(row)) > 1 for row in missing)
    if uneven or not isinstance(store, DenseStore):
        raise _clash(f"{codec.name} and this eviction", "equal heads", UNEVEN, EQUAL)
    return HeldView(
        layer=layer,
        k=store.k.narrow(2, 0, store.length),
        v=store.v.narrow(2, 0, store.length),
        missing=tuple(int(row[0]) for row in missing),
        kept=store.kept,
        n_valid=tuple(store.n_valid),
        queries=newest_of(queries, codec.need.window),
        scores=scores,
        room=store.room,
    )


def newest_of(queries: Tensor | None, window: int) -> Tensor | None:
    """The last `window` of the queries [b, H, w, d]; None for none."""
    return None if queries is None or not window else queries[:, :, -window:]


def held_scores(scores: Tensor, n_valid: Sequence[int], allotment: Allotment, choice: Choice | None) -> Tensor:
    """`HeldView.scores`: of all slots [b, h or 1, N], those of the choice, infinite where they are protected."""
    scores = protect(scores, n_valid, allotment)
    return scores if choice is None else scores.expand(-1, choice.index.shape[1], -1).gather(2, choice.index)


def ranks_slots(policy: Policy) -> bool:
    """True if the codec looks at this policy's scores."""
    return policy.codec is not None and policy.codec.ranked and not isinstance(policy, KeepAll)


def _clash(names: str, rule: str, why: str, hint: str) -> ModelError:
    return ModelError(f"{names} cannot be stacked in one arm", where=f"rule: {rule}", why=why, hint=hint)
