"""Keys and values of heads that keep unequal numbers of tokens, without a padding slot. Knows attention, no method.

What the prompt left lies flat, one run of slots for each row and head; newer tokens, which every head takes, lie behind
it in a dense tail that grows by `room` at a time. On a CPU each run is attended by itself and merged with the tail
through its log-sum-exp; elsewhere the layer is laid out padded for the length of one call, since many small calls cost
more there than the copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from loom_kv.attention import attend_masked, attend_one, flash, merge
from loom_kv.choose import Choice
from loom_kv.store import DenseStore

SLACK = 1.02
"""Padded heads may hold this many times the slots that are kept, before a layer is stored ragged."""


def uneven(choice: Choice) -> bool:
    """Padding the heads of each row to its widest would cost more than `SLACK`."""
    if choice.missing is None or choice.missing.shape[1] == 1:
        return False
    counts = choice.index.shape[2] - choice.missing
    padded, kept = counts.amax(dim=1).sum() * counts.shape[1], counts.sum()
    return bool((padded > SLACK * kept).item())


def kept(store: DenseStore, choice: Choice) -> DenseStore | RaggedStore:
    """What holds the chosen slots at the end of the prompt: the store itself, or a ragged one in its place."""
    if uneven(choice):
        return RaggedStore(store, choice)
    store.keep(choice)
    return store


def unpadded(store: DenseStore) -> DenseStore | RaggedStore:
    """The store, at the end of the prompt; ragged where padding its rows to the widest costs more than `SLACK`."""
    if store.missing is None:
        return store
    lanes = store.missing.shape[1]
    padded, kept = lanes * len(store.n_valid) * store.length, (store.length - store.missing).sum()
    if padded <= SLACK * int(kept):
        return store
    index = torch.arange(store.length, device=store.k.device).expand(len(store.n_valid), lanes, -1)
    return RaggedStore(store, Choice(index, store.missing))


class RaggedStore:
    """The chosen slots of a dense store, at the end of the prompt; its memory is free once the caller drops it.

    k [S, d], v [S, e] and kept [S] (positions, int32) hold row 0 head 0, row 0 head 1, and so on, ascending;
    counts[row][head] says how many slots each has.
    """

    def __init__(self, store: DenseStore, choice: Choice) -> None:
        rows, heads, columns = store.k.shape[:3]
        width, device = choice.index.shape[2], store.k.device
        missing = choice.missing if choice.missing is not None else torch.zeros(rows, heads, device=device)
        self.counts: list[list[int]] = (width - missing.expand(rows, heads)).int().tolist()
        self.n_valid, self.room = list(store.n_valid), store.room
        held = torch.arange(width, device=device) >= missing[..., None]
        line = torch.arange(rows * heads, device=device).view(rows, heads, 1) * columns
        held = held.expand(rows, heads, width)
        flat = (choice.index + line)[held]
        places = store.positions().expand(rows, heads, -1)
        self.kept = places.gather(2, choice.index.expand(rows, heads, width))[held].to(torch.int32)
        self.k = store.k.view(-1, store.k.shape[3]).index_select(0, flat)
        self.v = store.v.view(-1, store.v.shape[3]).index_select(0, flat)
        self.tail_k = store.k.new_empty(rows, heads, 0, store.k.shape[3])
        self.tail_v = store.v.new_empty(rows, heads, 0, store.v.shape[3])
        self.length = 0
        self._lay_out()

    def _lay_out(self) -> None:
        """Where the runs lie: starts [b, h], and missing [b, h], what each lacks to the widest; for padded views."""
        counts = torch.tensor(self.counts, device=self.k.device)
        self.starts = (counts.flatten().cumsum(0) - counts.flatten()).view(counts.shape)
        self.widest = max(itertools.chain.from_iterable(self.counts))
        self.missing = self.widest - counts

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """See `Store.attend`."""
        self._append(k, v)
        if q.device.type == "cpu" and q.shape[-1] == self.v.shape[-1]:
            return self._attend_runs(q, scaling)
        return self.attend_padded(q, scaling)

    def _append(self, k: Tensor, v: Tensor) -> None:
        n, end = k.shape[2], self.length + k.shape[2]
        if end > self.tail_k.shape[2]:
            old_k, old_v = self.tail_k, self.tail_v
            capacity = end + self.room - 1
            self.tail_k = k.new_empty(*k.shape[:2], capacity, k.shape[3])
            self.tail_v = v.new_empty(*v.shape[:2], capacity, v.shape[3])
            self.tail_k.narrow(2, 0, self.length).copy_(old_k.narrow(2, 0, self.length))
            self.tail_v.narrow(2, 0, self.length).copy_(old_v.narrow(2, 0, self.length))
        self.tail_k.narrow(2, self.length, n).copy_(k)
        self.tail_v.narrow(2, self.length, n).copy_(v)
        self.length = end

    def _attend_runs(self, q: Tensor, scaling: float | None) -> Tensor:
        """Each row and head by itself, merged with the tail. q [b, H, n, d] → [b, n, H, e]."""
        rows, query_heads, n, dim = q.shape
        heads = self.tail_k.shape[1]
        folded = q.reshape(rows, heads, query_heads // heads * n, dim)
        tail_k, tail_v = self.tail_k.narrow(2, 0, self.length), self.tail_v.narrow(2, 0, self.length)
        new, new_lse = flash(folded, tail_k, tail_v, False, self._causal(q, n, folded.shape[2]), scaling)
        # A head without a slot has weight zero: its log-sum-exp is the least number.
        past, past_lse = torch.zeros_like(new), torch.full_like(new_lse, torch.finfo(new_lse.dtype).min)
        start = 0
        for line, count in enumerate(itertools.chain.from_iterable(self.counts)):
            if count:
                row, head = divmod(line, heads)
                keys, values = self.k.narrow(0, start, count), self.v.narrow(0, start, count)
                own = folded[row : row + 1, head : head + 1]
                out, lse = flash(own, keys[None, None], values[None, None], False, None, scaling)
                past[row, head], past_lse[row, head] = out[0, 0], lse[0, 0]
                start += count
        merged = merge(new, new_lse, past, past_lse).to(q.dtype)
        return merged.view(rows, query_heads, n, -1).transpose(1, 2)

    def _causal(self, q: Tensor, n: int, folded: int) -> Tensor | None:
        """Additive mask [1, 1, folded, tail] of n new tokens, repeated for the query heads of a group; None for one."""
        if n == 1:
            return None
        later = torch.ones(n, self.length, dtype=torch.bool).triu(self.length - n + 1)
        bias = torch.zeros(n, self.length, dtype=q.dtype).masked_fill_(later, torch.finfo(q.dtype).min)
        return bias.repeat(folded // n, 1)[None, None]

    def attend_padded(self, q: Tensor, scaling: float | None) -> Tensor:
        """As `attend`, after the new tokens are appended, on a padded copy that lives for this call only."""
        keys, values = self.decoded()
        empty = torch.arange(keys.shape[2], device=q.device) < self.missing[..., None]
        bias = torch.zeros(empty.shape, dtype=q.dtype, device=q.device)
        bias = bias.masked_fill_(empty, torch.finfo(q.dtype).min)[:, :, None]
        if q.shape[2] == 1:
            return attend_one(q, keys, values, bias, scaling)
        return attend_masked(q, keys, values, bias, None, scaling)

    def _padded(self, flat: Tensor) -> Tensor:
        """[S, ...] laid out as [b, h, widest, ...], right-aligned; empty slots repeat some other one."""
        column = torch.arange(self.widest, device=flat.device) - self.missing[..., None]
        index = (self.starts[..., None] + column.clamp(min=0)).clamp(max=flat.shape[0] - 1)
        return flat.index_select(0, index.flatten()).view(*index.shape, *flat.shape[1:])

    def positions(self) -> Tensor:
        """See `Store.positions`."""
        rows, heads = self.tail_k.shape[:2]
        empty = torch.arange(self.widest, device=self.k.device) < self.missing[..., None]
        past = self._padded(self.kept).long().masked_fill(empty, -1)
        ends = torch.tensor(self.n_valid, device=past.device)[:, None, None]
        tail = ends + torch.arange(self.length, device=past.device)
        return torch.cat([past, tail.expand(rows, heads, -1)], dim=2)

    def decoded(self) -> tuple[Tensor, Tensor]:
        """See `Store.decoded`; a padded copy."""
        keys = torch.cat([self._padded(self.k), self.tail_k.narrow(2, 0, self.length)], dim=2)
        return keys, torch.cat([self._padded(self.v), self.tail_v.narrow(2, 0, self.length)], dim=2)

    def tensors(self) -> list[Tensor]:
        """See `Store.tensors`."""
        return [self.k, self.v, self.kept, self.starts, self.missing, self.tail_k, self.tail_v]

    def take(self, rows: Sequence[int]) -> None:
        """See `Store.take`; a row may be named more than once."""
        ends = [0, *itertools.accumulate(map(sum, self.counts))]
        slots = torch.cat([torch.arange(ends[row], ends[row + 1], device=self.k.device) for row in rows])
        index = torch.tensor(rows, device=self.k.device)
        self.counts = [self.counts[row] for row in rows]
        self.n_valid = [self.n_valid[row] for row in rows]
        self.k, self.v = self.k.index_select(0, slots), self.v.index_select(0, slots)
        self.kept = self.kept.index_select(0, slots)
        self.tail_k, self.tail_v = self.tail_k.index_select(0, index), self.tail_v.index_select(0, index)
        self._lay_out()
