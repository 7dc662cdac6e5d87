"""From scores to slots: the top-k rule with protected ranges, padding and ties. Knows tensors only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loom_kv.views import Allotment


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
    scores = protect(scores, n_valid, allotment).expand(rows, heads, columns)
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
    return Choice(_pack(kept, count, widest), widest - count if uneven else None)


def drop(scores: Tensor, held: Sequence[int], allotment: Allotment) -> Choice | None:
    """As `choose`, where few slots of each row must go and all heads keep equally many: one step of decoding.

    held: slots that each row holds now, the last ones of its columns.
    """
    rows, heads, columns = scores.shape
    keep = [row[0] for row in allotment.table(held, 1)]
    excess = [n - k for n, k in zip(held, keep, strict=True)]
    most = max(excess)
    if most == 0:
        return None
    last = {allotment.last} if isinstance(allotment.last, int) else set(allotment.last)
    if min(held) == columns and {*excess} == {1} and len(last) == 1 and isinstance(allotment.first, int):
        return Choice(_all_but_one(scores, allotment.first, last.pop()), None)
    scores = protect(scores, held, allotment)
    empty = torch.arange(columns, device=scores.device) < columns - torch.tensor(held, device=scores.device)[:, None]
    scores = scores.masked_fill(empty[:, None], torch.inf)
    lowest = scores.topk(most, dim=-1, largest=False, sorted=True).values
    count = torch.tensor(excess, device=scores.device)[:, None, None]
    cut = lowest.gather(-1, (count - 1).clamp(min=0).expand(rows, heads, 1))
    below, level = scores < cut, scores == cut
    # Among equal scores at the cut, count from the left: the larger positions stay.
    dropped = below | (level & (level.cumsum(-1) <= count - below.sum(-1, keepdim=True)))
    kept = ~(dropped & (count > 0)) & ~empty[:, None]
    widest = max(keep)
    total = torch.tensor(keep, device=scores.device)[:, None]
    return Choice(_pack(kept, total, widest), widest - total if min(keep) < widest else None)


def _all_but_one(scores: Tensor, first: int, last: int) -> Tensor:
    """As `drop` where every row is full and loses one slot: the usual step, in few operations."""
    columns = scores.shape[2]
    lowest = scores[:, :, first : columns - last].argmin(dim=-1, keepdim=True) + first
    index = torch.arange(columns - 1, device=scores.device)
    return index + (index >= lowest)


def _pack(kept: Tensor, count: Tensor, widest: int) -> Tensor:
    """The kept columns [b, h, N] as indices [b, h, widest], ascending and right-aligned. count: of each head."""
    slot = kept.cumsum(-1) - 1 + (widest - count)[..., None]
    index = torch.zeros(*kept.shape[:2], widest + 1, dtype=torch.int64, device=kept.device)
    source = torch.arange(kept.shape[2], device=kept.device).expand_as(kept)
    index.scatter_(-1, slot.masked_fill(~kept, widest), source)
    return index[..., :widest]


def protect(scores: Tensor, n_valid: Sequence[int], allotment: Allotment) -> Tensor:
    """Padding to -inf, protected ranges to +inf; a fresh tensor."""
    columns = scores.shape[-1]
    pads = torch.tensor([columns - n for n in n_valid], device=scores.device)[:, None, None]
    column = torch.arange(columns, device=scores.device)
    scores = scores.masked_fill(column < pads, -torch.inf)
    first, last = _rows(allotment.first, scores.device), _rows(allotment.last, scores.device)
    if first is not None:
        scores = scores.masked_fill((column >= pads) & (column < pads + first), torch.inf)
    if last is not None:
        scores = scores.masked_fill((column >= columns - last) & (column >= pads), torch.inf)
    return scores


def _rows(count: int | Sequence[int], device: torch.device) -> Tensor | int | None:
    """A count of slots that is equal for all rows, or of each [b, 1, 1]; None = none at all."""
    if isinstance(count, int):
        return count or None
    return torch.tensor(count, device=device)[:, None, None] if any(count) else None
