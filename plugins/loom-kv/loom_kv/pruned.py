"""Keys with fewer channels, beside recent keys that have all. Knows attention, no method.

Slots lie as in `store`: rows aligned at the right, empty slots at the left. Of the older slots each KV head holds its
own channels only, so a query's product with them takes these channels of the query; newer tokens are kept whole, and so
are all values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loom_kv.codec import HeldView


class ChannelPrunedStore:
    """One layer. See `Store`. view: what the policy left, some slots of it.

    channels: the channels that older keys keep [b, h, c], ascending. whole: how many of the last slots keep all.
    order: an order of the slots [b, h, K] in which the last ones are those that keep all, empty ones first; None = as
    they lie.
    """

    def __init__(self, view: HeldView, channels: Tensor, whole: int, order: Tensor | None = None) -> None:
        keys, values, kept = view.k, view.v, view.kept
        self.n_valid, self.room, self.base = list(view.n_valid), view.room, keys.shape[2]
        self.missing = list(view.missing)
        if order is not None:
            kept = view_positions(view) if kept is None else kept
            kept = kept.expand(order.shape).gather(2, order)
            keys, values = (x.gather(2, order[..., None].expand(x.shape)) for x in (keys, values))
        older = max(0, keys.shape[2] - whole)
        self.kept = kept
        self.channels = channels.to(torch.int16)
        index = channels[:, :, None].expand(-1, -1, older, -1)
        self.pruned = keys.narrow(2, 0, older).gather(3, index)
        self.whole = keys.narrow(2, older, keys.shape[2] - older).clone()
        self.values = values.clone()
        self.length = keys.shape[2]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """See `Store.attend`."""
        self._append(k, v)
        rows, query_heads, n, dim = q.shape
        heads, older = self.pruned.shape[1], self.pruned.shape[2]
        folded = q.reshape(rows, heads, -1, dim) * (dim**-0.5 if scaling is None else scaling)
        channels = self.channels.long()[:, :, None].expand(-1, -1, folded.shape[2], -1)
        near = self.whole.narrow(2, 0, self.length - older)
        logits = torch.cat(
            [folded.gather(3, channels) @ self.pruned.transpose(2, 3), folded @ near.transpose(2, 3)], dim=3
        )
        logits = logits.view(rows, query_heads, n, self.length).float()
        if n > 1:
            later = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
            logits[..., -n:].masked_fill_(later, -torch.inf)
        if any(self.missing):
            logits.masked_fill_(self._empty()[:, :, None], -torch.inf)
        weights = logits.softmax(dim=-1).to(v.dtype).view(rows, heads, -1, self.length)
        out = weights @ self.values.narrow(2, 0, self.length)
        return out.view(rows, query_heads, n, -1).transpose(1, 2)

    def _append(self, k: Tensor, v: Tensor) -> None:
        n, older = k.shape[2], self.pruned.shape[2]
        end = self.length + n
        if end > self.values.shape[2]:
            room = end + self.room - 1
            self.whole = _grown(self.whole, room - older)
            self.values = _grown(self.values, room)
        self.whole.narrow(2, self.length - older, n).copy_(k)
        self.values.narrow(2, self.length, n).copy_(v)
        self.length = end

    def _empty(self) -> Tensor:
        """bool [b, 1, N]."""
        missing = torch.tensor(self.missing, device=self.values.device)[:, None, None]
        return torch.arange(self.length, device=missing.device) < missing

    def decoded(self) -> tuple[Tensor, Tensor]:
        """Keys, with zeros for the channels that are gone, and values, in the order of `positions`."""
        older = self.pruned.shape[2]
        keys = self.whole.new_zeros(*self.whole.shape[:2], older, self.whole.shape[3])
        keys.scatter_(3, self.channels.long()[:, :, None].expand(-1, -1, older, -1), self.pruned)
        keys = torch.cat([keys, self.whole.narrow(2, 0, self.length - older)], dim=2)
        return keys, self.values.narrow(2, 0, self.length)

    def positions(self) -> Tensor:
        """See `Store.positions`; in no order where the codec gave its own."""
        column = torch.arange(self.length, device=self.values.device)
        ends = torch.tensor(self.n_valid, device=column.device)[:, None, None]
        places = column - self.base + ends
        if self.kept is not None:
            kept = self.kept.long()
            places = torch.cat([kept, places[..., self.base :].expand(-1, kept.shape[1], -1)], dim=2)
        return places.masked_fill(self._empty(), -1)

    def tensors(self) -> list[Tensor]:
        """See `Store.tensors`."""
        return [self.pruned, self.channels, self.whole, self.values, *([] if self.kept is None else [self.kept])]

    def take(self, rows: Sequence[int]) -> None:
        """See `Store.take`; a row may be named more than once."""
        index = torch.tensor(rows, device=self.values.device)
        self.n_valid = [self.n_valid[row] for row in rows]
        self.missing = [self.missing[row] for row in rows]
        lead = min(min(self.missing), self.pruned.shape[2])
        self.missing = [missing - lead for missing in self.missing]
        self.pruned = self.pruned.narrow(2, lead, self.pruned.shape[2] - lead).index_select(0, index)
        self.values = self.values.narrow(2, lead, self.values.shape[2] - lead).index_select(0, index)
        self.channels, self.whole = self.channels.index_select(0, index), self.whole.index_select(0, index)
        self.kept = None if self.kept is None else self.kept[:, :, lead:].index_select(0, index)
        self.length -= lead
        self.base -= lead


def view_positions(view: HeldView) -> Tensor:
    """Positions [b, 1, K], int32, of slots none of which was evicted; negative on empty ones."""
    column = torch.arange(view.k.shape[2], device=view.k.device)
    missing = torch.tensor(view.missing, device=column.device)
    return (column - missing[:, None])[:, None].to(torch.int32)


def _grown(x: Tensor, size: int) -> Tensor:
    """x [b, h, N, d] with room for `size` in the third dimension."""
    wider = x.new_empty(*x.shape[:2], size, x.shape[3])
    wider.narrow(2, 0, x.shape[2]).copy_(x)
    return wider
