"""How much attention every token of the prompt receives from all queries. Knows tensors only.

A layer's prefill chunk has all keys that its queries see, so the softmax of each query is exact, whatever the chunks.
Logits are computed for a block of queries at a time; no more than `BLOCK_BYTES` of them exist at once.

Shapes: b rows, H query heads, h KV heads, N columns of the left-padded prompt, n new columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK_BYTES = 64 * 1024**2


class ColumnMass:
    """Sums of one batch, layer by layer. n_valid: prompt tokens of each row.

    stride: 1 = every query; s = every s-th, counted from the newest of the prompt, times s. So counted, no chunk and no
    padding changes which queries are looked at.
    """

    def __init__(self, n_valid: Sequence[int], stride: int) -> None:
        self.width, self.stride = max(n_valid), stride
        self.n_valid = tuple(n_valid)
        self.sums: dict[int, Tensor] = {}

    def add(self, layer: int, q: Tensor, keys: Tensor, scaling: float | None) -> None:
        """Add the queries q [b, H, n, d] of a chunk, which see keys [b, h, M, d]; the last n of those are their own."""
        rows, query_heads, n, dim = q.shape
        heads, end = keys.shape[1], keys.shape[2]
        start = end - n
        if layer not in self.sums:
            self.sums[layer] = torch.zeros(rows, query_heads, self.width, device=q.device)
        pads = torch.tensor([self.width - n for n in self.n_valid], device=q.device)[:, None, None]
        first = start + (self.width - 1 - start) % self.stride
        size = max(1, BLOCK_BYTES // (rows * query_heads * end * 4)) * self.stride
        scaling = dim**-0.5 if scaling is None else scaling
        keys = keys.float()
        for begin in range(first, end, size):
            stop = min(begin + size, end)
            columns = torch.arange(begin, stop, self.stride, device=q.device)
            queries = q[:, :, begin - start : stop - start : self.stride].float() * scaling
            last = begin + (len(columns) - 1) * self.stride + 1
            logits = queries.reshape(rows, heads, -1, dim) @ keys[:, :, :last].transpose(2, 3)
            logits = logits.view(rows, query_heads, len(columns), last)
            floor = torch.finfo(torch.float32).min
            seen = torch.arange(last, device=q.device)
            # Only the block's own columns can be later than a query of it.
            logits[..., begin:].masked_fill_(seen[begin:] > columns[:, None], floor)
            if min(self.n_valid) < self.width:
                logits.masked_fill_((seen < pads)[:, :, None], floor)
            weights = logits.softmax(dim=-1)
            if min(self.n_valid) < self.width:
                weights.masked_fill_((columns < pads)[..., None], 0.0)
            self.sums[layer][:, :, :last] += weights.sum(dim=2) * self.stride

    def take(self, layer: int, heads: int) -> Tensor:
        """The sums of a layer [b, h, g, N], which are forgotten here."""
        sums = self.sums.pop(layer)
        return sums.view(sums.shape[0], heads, -1, self.width)
