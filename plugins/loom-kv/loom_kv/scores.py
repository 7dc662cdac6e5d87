"""Formulas that many methods share: window attention, pooling, group reduction. Pure functions of a `LayerView`.

All of it in float32, whatever the model's number format: the ranking must not hang on rounding.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from loom_kv.views import LayerView


def window_attention(view: LayerView) -> Tensor:
    """softmax(q_window kᵀ · scaling) over all valid, causal keys: [b, h, g, w, N], float32.

    w is `need.window`, or N where the prompt is shorter. Keys are never repeated for the query heads of a group.
    """
    assert view.queries is not None, "the policy's `need.window` is zero"
    rows, heads, columns, dim = view.k.shape
    window = view.queries.shape[2]
    queries = view.queries.float().reshape(rows, heads, -1, dim) * view.scaling
    logits = (queries @ view.k.float().transpose(2, 3)).view(rows, heads, -1, window, columns)
    # A finite floor instead of -inf: the window of a row shorter than w holds padding, which sees nothing.
    floor = torch.finfo(torch.float32).min
    later = torch.ones(window, window, dtype=torch.bool, device=logits.device).triu(1)
    logits[..., columns - window :].masked_fill_(later, floor)
    if view.valid is not None:
        logits.masked_fill_(~view.valid[:, :, None, None], floor)
    return logits.softmax(dim=-1)


def pool(scores: Tensor, kernel: int, how: Literal["avg", "max"]) -> Tensor:
    """Stride-1 pooling over the last dimension, same length; odd kernel.

    avg: zeros pad both ends and count. max: -inf pads both ends. scores: [..., N] with zeros on padding columns.
    """
    flat = scores.reshape(-1, 1, scores.shape[-1])
    if how == "avg":
        pooled = functional.avg_pool1d(flat, kernel, stride=1, padding=kernel // 2)
    else:
        pooled = functional.max_pool1d(flat, kernel, stride=1, padding=kernel // 2)
    return pooled.view(scores.shape)


def observed(
    view: LayerView,
    *,
    kernel: int,
    pooling: Literal["avg", "max"],
    group: Literal["mean", "max"],
    pool_first: bool,
) -> Tensor:
    """SnapKV's score: how much the window attends to each past token, summed over its queries: [b, h, N].

    pool_first: pool each query head's scores, then reduce the group; otherwise the other way round. Zero on the
    window itself.
    """
    attention = window_attention(view)
    window = attention.shape[3]
    past = attention[..., : view.columns - window].sum(dim=3)
    if pool_first:
        scores = group_reduce(pool(past, kernel, pooling), group)
    else:
        scores = pool(group_reduce(past, group), kernel, pooling)
    return functional.pad(scores, (0, window))


def group_reduce(scores: Tensor, how: Literal["mean", "max"]) -> Tensor:
    """[b, h, g, N] → [b, h, N]: one score for the query heads that share a KV head."""
    return scores.mean(dim=2) if how == "mean" else scores.amax(dim=2)
