"""From scores to slots: the top-k rule with protected ranges, padding and ties. Knows tensors only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loom_server_hf.kv.policy import Allotment


@dataclass(frozen=True, slots=True)
class Choice:
    """index: kept columns [b, h or 1, K], ascending, right-aligned. missing: leading slots of each head that hold
    nothing, [b, h or 1], or None where every head fills all K."""

    index: Tensor
    missing: Tensor | None


def choose(scores: Tensor, n_valid: Sequence[int], allotment: Allotment) -> Choice | None:
    """The kept slots of one layer. scores: float32 [b, h or 1, N]; the last n_valid[row] columns are tokens.

    None where every row keeps all it has. Ties at the cut go to the larger position; no draw, no sort of the whole row.
    """
    rows, heads, columns = scores.shape
    keep = allotment.table(n_valid, heads)
    if all(k == n for row, n in zip(keep, n_valid, strict=True) for k in row):
        return None
    heads = len(keep[0])
    scores = _protect(scores, n_valid, allotment).expand(rows, heads, columns)
    widest = max(max(row) for row in keep)
    uneven = any(k != widest for row in keep for k in row)
    count = torch.tensor(keep, device=scores.device)
    ranked = scores.topk(widest, dim=-1).values
    cut = ranked.gather(-1, (count - 1).clamp(min=0)[..., None])
    above = scores > cut
    level = scores == cut
    # Among equal scores at the cut, count from the right: the larger positions win.
    from_right = level.flip(-1).cumsum(-1).flip(-1)
    kept = above | (level & (from_right <= (count - above.sum(-1))[..., None]))
    slot = kept.cumsum(-1) - 1 + (widest - count)[..., None]
    index = torch.zeros(rows, heads, widest + 1, dtype=torch.int64, device=scores.device)
    source = torch.arange(columns, device=scores.device).expand(rows, heads, columns)
    index.scatter_(-1, slot.masked_fill(~kept, widest), source)
    return Choice(index[..., :widest], widest - count if uneven else None)


def _protect(scores: Tensor, n_valid: Sequence[int], allotment: Allotment) -> Tensor:
    """Padding to -inf, protected ranges to +inf; a fresh tensor."""
    columns = scores.shape[-1]
    pads = torch.tensor([columns - n for n in n_valid], device=scores.device)[:, None, None]
    column = torch.arange(columns, device=scores.device)
    scores = scores.masked_fill(column < pads, -torch.inf)
    if allotment.first:
        scores = scores.masked_fill((column >= pads) & (column < pads + allotment.first), torch.inf)
    if allotment.last:
        scores = scores.masked_fill(column >= (columns - allotment.last), torch.inf)
        scores = scores.masked_fill(column < pads, -torch.inf)
    return scores
