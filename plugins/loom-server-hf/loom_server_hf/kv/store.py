"""Where keys and values lie: preallocated, with gaps and positions. Knows attention, no model and no method.

A slot holds one token of one row and KV head. Rows are aligned at the right: a row or head with fewer tokens than the
widest has empty slots at its left (`missing`). Slots stay sorted by position. Storage is exact after the prefill and
after an eviction, and grows by `room` tokens at a time while decoding; nobody keeps a view of freed storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from loom_server_hf.kv.attention import attend_many, attend_one
from loom_server_hf.kv.choose import Choice


class Store(Protocol):
    """One layer's cache."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """Append k, v [b, h, n, d] and attend with q [b, H, n, d]: [b, n, H, d]."""

    def positions(self) -> Tensor:
        """Position in the row's own text of each slot [b, h or 1, slots]; -1 where the slot is empty."""

    def tensors(self) -> list[Tensor]:
        """Everything that is held, for measuring."""

    def take(self, rows: Sequence[int]) -> None:
        """Keep these rows of the batch only, and free the others."""


class DenseStore:
    """Keys and values as they are. n_valid: prompt tokens of each row; the prompt's columns are left padded.

    room: how many tokens the storage grows by when a decoded token does not fit.
    """

    def __init__(self, n_valid: Sequence[int], room: int) -> None:
        self.width = max(n_valid)
        self.room = room
        self.length = 0
        self.n_valid = list(n_valid)
        self.k: Tensor = torch.empty(0)
        self.v: Tensor = torch.empty(0)
        self.capacity = 0
        self.missing: Tensor | None = None
        self.bias: Tensor | None = None
        self.kept: Tensor | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """See `Store.attend`."""
        n, start = k.shape[2], self.length
        end = start + n
        if end > self.capacity:
            self._grow(k, v, end)
        self.k.narrow(2, start, n).copy_(k)
        self.v.narrow(2, start, n).copy_(v)
        self.length = end
        keys, values = self.k.narrow(2, 0, end), self.v.narrow(2, 0, end)
        bias = None if self.bias is None else self.bias.narrow(3, 0, end)
        if n == 1 and start:
            return attend_one(q, keys, values, bias, scaling)
        pads = None
        if self.kept is None and self.missing is not None and start < self.width - min(self.n_valid):
            pads = (self.missing[:, 0] - start).clamp(0, n)
        return attend_many(q, keys, values, bias, pads, scaling)

    def _grow(self, k: Tensor, v: Tensor, end: int) -> None:
        """Room for `end` tokens: the whole prompt at first, later `room` more than asked."""
        rows, heads = k.shape[:2]
        old_k, old_v = self.k, self.v
        self.capacity = max(self.width, end) if self.length == 0 else end + self.room - 1
        self.k = k.new_empty(rows, heads, self.capacity, k.shape[3])
        self.v = v.new_empty(rows, heads, self.capacity, v.shape[3])
        if self.length:
            self.k.narrow(2, 0, self.length).copy_(old_k.narrow(2, 0, self.length))
            self.v.narrow(2, 0, self.length).copy_(old_v.narrow(2, 0, self.length))
        elif min(self.n_valid) < self.width:
            self.missing = torch.tensor([[self.width - n] for n in self.n_valid], device=k.device)
        self._hide()

    def _hide(self) -> None:
        """Rebuild the additive bias over empty slots, for the present capacity."""
        if self.missing is None:
            self.bias = None
            return
        empty = torch.arange(self.capacity, device=self.missing.device) < self.missing[..., None]
        bias = torch.zeros(empty.shape, dtype=self.k.dtype, device=self.missing.device)
        # A finite minimum, not -inf: a query that sees nothing in one part must still have a log-sum-exp there.
        self.bias = bias.masked_fill_(empty, torch.finfo(self.k.dtype).min)[:, :, None]

    def keep(self, choice: Choice) -> None:
        """Gather the chosen slots into fresh, exact storage; the old one is freed. Call once, after the prefill."""
        rows, heads = self.k.shape[:2]
        index = choice.index.expand(rows, heads, -1)
        line = torch.arange(rows * heads, device=index.device).view(rows, heads, 1) * self.capacity
        flat = (index + line).reshape(-1)
        width = index.shape[2]
        self.kept = (choice.index - (self._pads()[:, None, None])).to(torch.int32)
        self.k = self.k.view(-1, self.k.shape[3]).index_select(0, flat).view(rows, heads, width, -1)
        self.v = self.v.view(-1, self.v.shape[3]).index_select(0, flat).view(rows, heads, width, -1)
        self.length = self.capacity = width
        self.missing = choice.missing
        self._hide()

    def _pads(self) -> Tensor:
        return torch.tensor([self.width - n for n in self.n_valid], device=self.k.device)

    def positions(self) -> Tensor:
        """See `Store.positions`."""
        slots = torch.arange(self.length, device=self.k.device)
        if self.kept is None:
            missing = self.missing if self.missing is not None else torch.zeros(1, 1, device=slots.device)
            places = (slots - missing[..., None]).long().expand(self.k.shape[0], -1, -1)
        else:
            width = self.kept.shape[2]
            tail = torch.tensor(self.n_valid, device=slots.device)[:, None, None] + slots[: self.length - width]
            places = torch.cat([self.kept.long(), tail.expand(-1, self.kept.shape[1], -1)], dim=2)
        return places if self.missing is None else places.masked_fill(slots < self.missing[..., None], -1)

    def tensors(self) -> list[Tensor]:
        """See `Store.tensors`."""
        return [t for t in (self.k, self.v, self.missing, self.bias, self.kept) if t is not None]

    def take(self, rows: Sequence[int]) -> None:
        """See `Store.take`. Slots that are empty in all remaining rows are freed too."""
        index = torch.tensor(rows, device=self.k.device)
        self.n_valid = [self.n_valid[row] for row in rows]
        lead = 0
        if self.missing is not None:
            self.missing = self.missing.index_select(0, index)
            lead, most = int(self.missing.min()), int(self.missing.max())
            self.missing = self.missing - lead if most > lead else None
        self.k = self.k.narrow(2, lead, self.capacity - lead).index_select(0, index)
        self.v = self.v.narrow(2, lead, self.capacity - lead).index_select(0, index)
        if self.kept is not None:
            self.kept = self.kept[:, :, lead:].index_select(0, index)
        self.width -= lead
        self.length -= lead
        self.capacity -= lead
        self._hide()
