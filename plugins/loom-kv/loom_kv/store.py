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

from loom_kv.attention import attend_many, attend_one
from loom_kv.choose import Choice


class Store(Protocol):
    """One layer's cache."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """Append k, v [b, h, n, d] and attend with q [b, H, n, d]: [b, n, H, d]."""

    def positions(self) -> Tensor:
        """Position in the row's own text of each slot [b, h or 1, slots]; -1 where the slot is empty."""

    def decoded(self) -> tuple[Tensor, Tensor]:
        """Keys and values [b, h, slots, d] as attention sees them now, in the order of `positions`.

        What is in empty slots means nothing. Keys that the host rotates come as they were before.
        """

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
        self.n_decoded = 0
        self.lead: tuple[Tensor, Tensor, int] | None = None

    def continue_from(self, k: Tensor, v: Tensor, columns: int) -> None:
        """Begin with `columns` columns, where every row holds the first tokens of k, v [1, h, P, d] behind its padding.

        They are copied at the first `attend`, so that no more than one layer holds them for all rows at a time.
        """
        self.lead = k, v, columns

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """See `Store.attend`."""
        n = k.shape[2]
        start = self._append(k, v)
        end = self.length
        keys, values = self.k.narrow(2, 0, end), self.v.narrow(2, 0, end)
        bias = None if self.bias is None else self.bias.narrow(3, 0, end)
        if n == 1 and start:
            return attend_one(q, keys, values, bias, scaling)
        pads = None
        if self.kept is None and self.missing is not None and start < self.width - min(self.n_valid):
            pads = (self.missing[:, 0] - start).clamp(0, n)
        return attend_many(q, keys, values, bias, pads, scaling)

    def _append(self, k: Tensor, v: Tensor) -> int:
        """Write k, v behind what is there; returns the first slot written."""
        if self.lead is not None:
            self._copy_lead(k, v, *self.lead)
        n, start = k.shape[2], self.length
        if start + n > self.capacity:
            self._grow(k, v, start + n)
        self.k.narrow(2, start, n).copy_(k)
        self.v.narrow(2, start, n).copy_(v)
        self.length = start + n
        return start

    def _copy_lead(self, k: Tensor, v: Tensor, lead_k: Tensor, lead_v: Tensor, columns: int) -> None:
        self.lead = None
        self._grow(k, v, columns + k.shape[2])
        for row, n in enumerate(self.n_valid):
            pad = self.width - n
            for own, lead in ((self.k, lead_k), (self.v, lead_v)):
                # Hidden slots take part in the products, so they must be finite.
                own[row, :, :pad] = 0
                own[row, :, pad:columns] = lead[0, :, : max(0, columns - pad)]
        self.length = columns

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

    def keep(self, choice: Choice, spare: int = 0) -> None:
        """Gather the chosen slots to the left of storage with `spare` free slots behind them.

        The old storage is freed, unless it is of just that size: then it is used again.
        """
        rows, heads = self.k.shape[:2]
        index = choice.index.expand(rows, heads, -1)
        line = torch.arange(rows * heads, device=index.device).view(rows, heads, 1) * self.capacity
        flat = (index + line).reshape(-1)
        width = index.shape[2]
        places = self.positions()
        lanes = max(places.shape[1], choice.index.shape[1])
        self.n_decoded += self.length - (self.width if self.kept is None else self.kept.shape[2])
        chosen = choice.index.expand(rows, lanes, -1)
        self.kept = places.expand(rows, lanes, -1).gather(2, chosen).to(torch.int32)
        self.k = self._placed(self.k, self.k.view(-1, self.k.shape[3]).index_select(0, flat), width, spare)
        self.v = self._placed(self.v, self.v.view(-1, self.v.shape[3]).index_select(0, flat), width, spare)
        self.length, self.capacity = width, width + spare
        self.missing = choice.missing
        self._hide()

    def _placed(self, old: Tensor, gathered: Tensor, width: int, spare: int) -> Tensor:
        gathered = gathered.view(*old.shape[:2], width, old.shape[3])
        if not spare:
            return gathered
        new = old if self.capacity == width + spare else old.new_empty(*old.shape[:2], width + spare, old.shape[3])
        new.narrow(2, 0, width).copy_(gathered)
        return new

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
            ends = torch.tensor(self.n_valid, device=slots.device)[:, None, None] + self.n_decoded
            tail = ends + slots[: self.length - width]
            places = torch.cat([self.kept.long(), tail.expand(-1, self.kept.shape[1], -1)], dim=2)
        return places if self.missing is None else places.masked_fill(slots < self.missing[..., None], -1)

    def decoded(self) -> tuple[Tensor, Tensor]:
        """See `Store.decoded`."""
        return self.k.narrow(2, 0, self.length), self.v.narrow(2, 0, self.length)

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
