"""Attention sinks with a rolling window, while the prompt is read and while decoding. Knows tensors and the rotation.

Before each token the cache is cut to its first `sinks` and last `recent - 1` tokens, so that a token sees at most
`sinks + recent` keys with itself. Inside a chunk this is a band: the same sets, many tokens at a time.

In-cache positions: a cached key is rotated by its index in the cache, the query by the last index. Among the recent
tokens that is the distance in the text, so one rotation serves a whole chunk; towards the sinks the query stands at
`min(t, sinks + recent - 1)`, so their logits are computed with a second rotation of the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loom_kv.rope import Rope, Tables
from loom_kv.views import Stream


@dataclass(frozen=True, slots=True)
class Step:
    """What one forward pass of n tokens needs, equal for all layers.

    visible: bool [b, 1, n, N]. sink: bool [b, 1, 1, c], which of the first c slots are sinks. tables: rotations of all
    N keys, of the n queries, and of the n queries towards sinks; None with original positions. keep: slots [b, K] that
    remain afterwards; None = all.
    """

    visible: Tensor
    sink: Tensor
    tables: tuple[Tables, Tables, Tables] | None
    keep: Tensor | None


class StreamClock:
    """The positions in a streamed cache, shared by all layers. streams: one rule per row.

    width: columns of the left-padded batch. room: expired slots that may wait while decoding before they are freed.
    """

    def __init__(
        self, streams: Sequence[Stream], n_valid: Sequence[int], room: int, rope: Rope | None, device: torch.device
    ) -> None:
        self.rope = rope
        self.room = room
        self.width = max(n_valid)
        self.seen = 0
        self.pads = torch.tensor([self.width - n for n in n_valid], device=device)
        self.sinks = torch.tensor([s.sinks for s in streams], device=device)
        self.recent = torch.tensor([s.recent for s in streams], device=device)
        self.streams, self.n_valid = list(streams), list(n_valid)
        self.places = torch.empty(len(streams), 0, dtype=torch.int64, device=device)
        self.current: Step

    def step(self, n: int) -> None:
        """Take n new columns in, as the `current` step; called once per forward pass, before its first layer."""
        new = torch.arange(self.seen, self.seen + n, device=self.pads.device) - self.pads[:, None]
        places = torch.cat([self.places, new], dim=1)
        at, now = places[:, None], new[:, :, None]
        sinks, recent = self.sinks[:, None, None], self.recent[:, None, None]
        visible = (at >= 0) & (at <= now) & ((at < sinks) | (at > now - recent))
        own = torch.eye(n, dtype=torch.bool, device=new.device)
        visible[..., -n:] |= own & (now < 0)
        lead = min(places.shape[1], max(s.sinks for s in self.streams) + self._most_missing())
        sink = (places[:, :lead] >= 0) & (places[:, :lead] < self.sinks[:, None])
        tables = self._tables(places, new)
        self.seen += n
        self.places = places
        keep = self._cut()
        self.current = Step(visible[:, None], sink[:, None, None], tables, keep)

    def _most_missing(self) -> int:
        """Most leading slots that hold no token in some row, of the cache before this step."""
        held = self.places.shape[1]
        if self.seen < self.width and self.seen == held:
            return max(self.width - n for n in self.n_valid)
        return max(held - min(self._row_length(row), held) for row in range(len(self.streams)))

    def _row_length(self, row: int) -> int:
        seen = self.seen - (self.width - self.n_valid[row])
        return max(0, min(seen, self.streams[row].sinks + self.streams[row].recent))

    def _tables(self, places: Tensor, new: Tensor) -> tuple[Tables, Tables, Tables] | None:
        if self.rope is None:
            return None
        size = (self.sinks + self.recent)[:, None]
        shift = (new[:, :1] - size + 1).clamp(min=0)
        keys = torch.where(places < self.sinks[:, None], places, places - shift).clamp(min=0)
        queries = (new - shift).clamp(min=0)
        towards_sinks = torch.minimum(new, size - 1).clamp(min=0)
        return self.rope.tables(keys), self.rope.tables(queries), self.rope.tables(towards_sinks)

    def _cut(self) -> Tensor | None:
        """The slots that later tokens may see; while decoding only once `room` expired slots have gathered."""
        width = max(self._row_length(row) for row in range(len(self.streams)))
        held = self.places.shape[1]
        if held == width or (self.seen > self.width and held < width + self.room):
            return None
        newest = self.places[:, -1:]
        kept = (self.places >= 0) & (
            (self.places < self.sinks[:, None]) | (self.places > newest - self.recent[:, None])
        )
        slot = kept.cumsum(1) - 1 + (width - kept.sum(1, keepdim=True))
        index = torch.zeros(kept.shape[0], width + 1, dtype=torch.int64, device=kept.device)
        columns = torch.arange(held, device=kept.device).expand_as(kept)
        index.scatter_(1, slot.masked_fill(~kept, width), columns)
        empty = torch.arange(width, device=kept.device) < (width - kept.sum(1, keepdim=True))
        index = index[:, :width]
        self.places = self.places.gather(1, index).masked_fill(empty, -1)
        return index

    def take(self, rows: Sequence[int]) -> None:
        """Keep these rows of the batch only."""
        index = torch.tensor(rows, device=self.pads.device)
        self.streams = [self.streams[row] for row in rows]
        self.n_valid = [self.n_valid[row] for row in rows]
        self.pads, self.sinks = self.pads[index], self.sinks[index]
        self.recent, self.places = self.recent[index], self.places[index]


class StreamStore:
    """One layer's keys and values under a `StreamClock`, which has taken the step that is attended."""

    def __init__(self, clock: StreamClock) -> None:
        self.clock = clock
        self.k: Tensor = torch.empty(0)
        self.v: Tensor = torch.empty(0)
        self.length = 0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """See `Store.attend`; cuts the cache afterwards."""
        step = self.clock.current
        self._append(k, v)
        keys, values = self.k.narrow(2, 0, self.length), self.v.narrow(2, 0, self.length)
        out = self._attend(q, keys, values, step, q.shape[3] ** -0.5 if scaling is None else scaling)
        if step.keep is not None:
            index = step.keep[:, None, :, None]
            self.k = keys.gather(2, index.expand(-1, k.shape[1], -1, k.shape[3]))
            self.v = values.gather(2, index.expand(-1, v.shape[1], -1, v.shape[3]))
            self.length = self.k.shape[2]
        return out

    def _append(self, k: Tensor, v: Tensor) -> None:
        rows, heads, n, _ = k.shape
        end = self.length + n
        if self.length == 0 or end > self.k.shape[2]:
            old_k, old_v = self.k, self.v
            capacity = end if n > 1 or self.length == 0 else end + self.clock.room
            self.k = k.new_empty(rows, heads, capacity, k.shape[3])
            self.v = v.new_empty(rows, heads, capacity, v.shape[3])
            if self.length:
                self.k.narrow(2, 0, self.length).copy_(old_k.narrow(2, 0, self.length))
                self.v.narrow(2, 0, self.length).copy_(old_v.narrow(2, 0, self.length))
        self.k.narrow(2, self.length, n).copy_(k)
        self.v.narrow(2, self.length, n).copy_(v)
        self.length = end

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, step: Step, scaling: float) -> Tensor:
        rows, query_heads, n, dim = q.shape
        heads, total = keys.shape[1], keys.shape[2]
        group = query_heads // heads
        rope, tables = self.clock.rope, step.tables
        if rope is None or tables is None:
            logits = q.reshape(rows, heads, group * n, dim) @ keys.transpose(2, 3)
        else:
            rotated = rope.rotate(keys, tables[0])
            lead = step.sink.shape[3]
            near = rope.rotate(q, tables[1]).reshape(rows, heads, group * n, dim)
            far = rope.rotate(q, tables[2]).reshape(rows, heads, group * n, dim)
            logits = near @ rotated.transpose(2, 3)
            sinks = far @ rotated.narrow(2, 0, lead).transpose(2, 3)
            logits[..., :lead] = torch.where(step.sink, sinks, logits[..., :lead])
        logits = logits.view(rows, heads, group, n, total).float() * scaling
        weights = logits.masked_fill_(~step.visible[:, :, None], -torch.inf).softmax(dim=-1).to(values.dtype)
        out = weights.view(rows, heads, group * n, total) @ values
        return out.view(rows, query_heads, n, -1).transpose(1, 2)

    def positions(self) -> Tensor:
        """See `Store.positions`; expired slots that still wait to be freed are shown as empty."""
        places = self.clock.places
        newest = places[:, -1:]
        live = (places < self.clock.sinks[:, None]) | (places > newest - self.clock.recent[:, None])
        return places.masked_fill(~live | (places < 0), -1)[:, None]

    def decoded(self) -> tuple[Tensor, Tensor]:
        """See `Store.decoded`."""
        return self.k.narrow(2, 0, self.length), self.v.narrow(2, 0, self.length)

    def tensors(self) -> list[Tensor]:
        """See `Store.tensors`."""
        return [self.k, self.v]

    def take(self, rows: Sequence[int]) -> None:
        """See `Store.take`; the clock is taken by the host."""
        index = torch.tensor(rows, device=self.k.device)
        self.k, self.v = self.k.index_select(0, index), self.v.index_select(0, index)
