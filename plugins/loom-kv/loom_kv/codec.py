"""How the slots that a policy keeps are held: quantised, or with fewer channels. Knows tensors, no model, no text.

A method part is a `Policy` (which slots are kept) or a `Codec` (how they are held). An arm may have one of each; a
codec alone holds every slot. The host calls `encode` once per layer and prompt, after the layer's prefill attention and
after the policy's eviction; the store that it returns appends and attends from then on. A codec never sees a module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from loom_core.api import ModelError, Saves
from loom_kv.store import Store
from loom_kv.views import Geometry, Need, Stream

LONG = 2**30
"""Tokens of a prompt that is longer than any budget."""


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


class ReadsPrompt(Protocol):
    """What a codec may know of the policy it stands behind."""

    @property
    def name(self) -> str:
        """Of the method."""

    def stream(self, n_valid: int) -> Stream | None:
        """How the cache is cut while a prompt of `n_valid` tokens is read; None = only afterwards."""


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

    def check_policy(self, policy: ReadsPrompt) -> None:
        """Refuse a policy that cuts the cache while the prompt is read. Raises ModelError."""
        if policy.stream(LONG) is not None:
            raise clash(
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


def clash(names: str, rule: str, why: str, hint: str) -> ModelError:
    """The error of parts that cannot be in one arm."""
    return ModelError(f"{names} cannot be stacked in one arm", where=f"rule: {rule}", why=why, hint=hint)
