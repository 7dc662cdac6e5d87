"""What a policy and a host tell each other: needs, views of a layer, allotments, merges. Knows tensors only.

Shapes: b rows, H query heads, h KV heads, g = H / h, N prompt columns (left padded), w window, d head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loom_kv.rope import Rope


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a policy wants to see; the host keeps and computes only that.

    window: how many of the newest queries, over all prefill chunks. mass_stride: the attention that every token
    receives from all queries, summed (`LayerView.mass`); 1 = exactly, s = from every s-th query, times s; 0 = not at
    all. What else a policy may see and decide are its `roles`.
    """

    window: int = 0
    mass_stride: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The shape of a model's keys and values, equal in all layers."""

    layers: int
    query_heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.query_heads // self.kv_heads

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values over all layers and KV heads."""
        return self.layers * self.kv_heads * (self.key_dim + self.value_dim) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryChunk:
    """The queries of one layer and prefill chunk, before the rotary embedding.

    queries: float32 [b, H, n, d]. positions: [b, n] in each row's own text, negative on padding.
    """

    layer: int
    queries: Tensor
    positions: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerView:
    """One layer at the end of its prefill, read-only.

    k, v: [b, h, N, d], keys after RoPE. n_valid: prompt tokens of each row; its columns are the last n_valid ones.
    valid: bool [b, 1, N], False on padding; None where no row is padded. queries: the newest `need.window` queries
    [b, H, w, d], those of the last w columns; None where the policy needs none. seeds: one per row, for random draws.
    rope: the model's rotation, for policies that observe raw queries. mass: float32 [b, h, g, N], for policies with
    `need.mass_stride`: the attention probabilities of all queries of a head, summed for each token.
    """

    layer: int
    k: Tensor
    v: Tensor
    n_valid: tuple[int, ...]
    valid: Tensor | None
    queries: Tensor | None
    scaling: float
    seeds: tuple[int, ...]
    geometry: Geometry
    rope: Rope | None = None
    mass: Tensor | None = None

    @property
    def columns(self) -> int:
        """N: the width of the left-padded batch."""
        return int(self.k.shape[2])

    @property
    def positions(self) -> Tensor:
        """Logical positions [b, 1, N], int64; negative on padding."""
        columns = torch.arange(self.columns, device=self.k.device)
        pads = torch.tensor([self.columns - n for n in self.n_valid], device=self.k.device)
        return (columns - pads[:, None])[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """How many slots are kept: `slots[row]`, or `slots[row][head]`; padding never counts.

    first, last: valid tokens at the start and at the end that are kept whatever their score, of all rows or of each;
    they are inside `slots`.
    """

    slots: Sequence[int] | Sequence[Sequence[int]]
    first: int | Sequence[int] = 0
    last: int | Sequence[int] = 0

    def table(self, n_valid: Sequence[int], heads: int) -> list[list[int]]:
        """Slots really kept, [row][head]: no head keeps more than there is."""
        rows = [[slots] * heads if isinstance(slots, int) else list(slots) for slots in self.slots]
        return [[min(slots, n) for slots in row] for row, n in zip(rows, n_valid, strict=True)]

    def take(self, rows: Sequence[int]) -> Allotment:
        """The allotment of these rows."""
        first, last = (
            count if isinstance(count, int) else [count[row] for row in rows] for count in (self.first, self.last)
        )
        slots: Any = [self.slots[row] for row in rows]
        return Allotment(slots=slots, first=first, last=last)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One layer at one decoding step, after its attention: the cache with the new token in its last slot, read-only.

    weights: float32 [b, h, g, S], attention probabilities of the new token over the S slots. scores: float32
    [b, h or 1, S], what `step` or `score` gave before, zero on the new slot. held: bool [b, 1, S], False on slots that
    hold nothing (the leading ones of shorter rows). newest: position of the new token in each row's text. allotment:
    of the prompt; its slots are the most that a row holds after this step. n_held: slots that each row holds now.
    """

    layer: int
    weights: Tensor
    scores: Tensor
    held: Tensor
    newest: tuple[int, ...]
    n_held: tuple[int, ...]
    allotment: Allotment
    seeds: tuple[int, ...]
    geometry: Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """Values of one slot of each head are added to others: v_j += shares_j · v_source.

    source: int64 [b, h], a slot. shares: float32 [b, h, S], zero where nothing is added.
    """

    source: Tensor
    shares: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A prefill that never sees more than `sinks + recent` tokens: the cache is cut before each new token.

    in_cache: keys are kept raw and rotated by their index in the cache, the query by the last index; otherwise
    every token keeps its position in the text.
    """

    sinks: int
    recent: int
    in_cache: bool
