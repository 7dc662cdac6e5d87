"""Causal attention of new queries over a cache with gaps. Pure functions of tensors; knows no cache and no method.

Grouped heads are never repeated over the whole cache: the g query heads of a KV head are folded into the query
dimension. On a CPU the past and the new block are attended separately and merged through their log-sum-exp, so no mask
of n x N is ever built there.

Shapes: q [b, H, n, d]; keys [b, h, N, d] and values [b, h, N, e] with the n new tokens last.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right


def attend_one(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scaling: float | None) -> Tensor:
    """One new token, which sees everything that `bias` does not hide: [b, 1, H, e].

    bias: additive [b, h or 1, 1, N], zero or the dtype's minimum; None = nothing hidden.
    """
    rows, query_heads, _, dim = q.shape
    folded = q.reshape(rows, keys.shape[1], -1, dim)
    out = functional.scaled_dot_product_attention(folded, keys, values, attn_mask=bias, scale=scaling)
    return out.reshape(rows, 1, query_heads, -1)


def attend_many(
    q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, pads: Tensor | None, scaling: float | None
) -> Tensor:
    """n new tokens, causal among themselves: [b, n, H, e].

    bias: additive [b, h or 1, 1, N] over all slots, as in `attend_one`. pads: how many of the n new columns of each
    row, from the left, are padding [b]; None = none. A padding query sees itself only, so that it stays finite.
    """
    n, total = q.shape[2], keys.shape[2]
    group = q.shape[1] // keys.shape[1]
    if total == n and pads is None:
        out = functional.scaled_dot_product_attention(
            q, keys, values, is_causal=True, scale=scaling, enable_gqa=group > 1
        )
        return out.transpose(1, 2)
    if q.device.type == "cpu" and q.shape[-1] == values.shape[-1]:
        return _attend_merged(q, keys, values, bias, pads, scaling)
    return attend_masked(q, keys, values, bias, pads, scaling)


def attend_masked(
    q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, pads: Tensor | None, scaling: float | None
) -> Tensor:
    """As `attend_many`, in one call of torch's attention, with a mask only where something is hidden."""
    n, total = q.shape[2], keys.shape[2]
    group = q.shape[1] // keys.shape[1]
    if bias is None and pads is None:
        mask = cast(Tensor, causal_lower_right(n, total))
        out = functional.scaled_dot_product_attention(
            q, keys, values, attn_mask=mask, scale=scaling, enable_gqa=group > 1
        )
        return out.transpose(1, 2)
    new = torch.arange(n, device=q.device)
    mask = torch.ones(n, total, dtype=torch.bool, device=q.device).tril(total - n)[None, None]
    if bias is not None:
        mask = mask & (bias == 0)
    if pads is not None:
        block = _block_mask(n, pads)
        past = mask[..., : total - n].expand(q.shape[0], -1, n, -1) & (new >= pads[:, None])[:, None, :, None]
        mask = torch.cat([past, block.expand(-1, past.shape[1], -1, -1)], dim=-1)
    if mask.shape[1] > 1:
        mask = mask.repeat_interleave(group, dim=1)
    out = functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=scaling, enable_gqa=group > 1)
    return out.transpose(1, 2)


def _block_mask(n: int, pads: Tensor) -> Tensor:
    """Who sees whom among the new tokens: causal, padding sees itself only. bool [b, 1, n, n]."""
    new = torch.arange(n, device=pads.device)
    causal = new[:, None] >= new
    real = new >= pads[:, None]
    return ((causal & real[:, None]) | torch.eye(n, dtype=torch.bool, device=pads.device))[:, None]


def _repeat(x: Tensor, group: int) -> Tensor:
    return x if group == 1 else x.repeat_interleave(group, dim=1)


def _attend_merged(
    q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, pads: Tensor | None, scaling: float | None
) -> Tensor:
    """The past without a mask over queries, the new block causally, merged by their log-sum-exp."""
    rows, query_heads, n, dim = q.shape
    heads, total = keys.shape[1], keys.shape[2]
    past = total - n
    group = query_heads // heads
    block = None
    if pads is not None:
        block = torch.zeros(rows, 1, n, n, dtype=q.dtype)
        block.masked_fill_(~_block_mask(n, pads), torch.finfo(q.dtype).min)
    new_keys, new_values = keys.narrow(2, past, n), values.narrow(2, past, n)
    out, lse = flash(q, _repeat(new_keys, group), _repeat(new_values, group), block is None, block, scaling)
    if past:
        folded = q.reshape(rows, heads, group * n, dim)
        hidden = None if bias is None else bias.narrow(3, 0, past)
        past_out, past_lse = flash(folded, keys.narrow(2, 0, past), values.narrow(2, 0, past), False, hidden, scaling)
        past_lse = past_lse.reshape(rows, query_heads, n)
        if pads is not None:
            late = torch.arange(n)[None] < pads[:, None]
            past_lse = past_lse.masked_fill(late[:, None], torch.finfo(past_lse.dtype).min)
        out = merge(out, lse.reshape(rows, query_heads, n), past_out.reshape(out.shape), past_lse).to(q.dtype)
    return out.transpose(1, 2)


def merge(one: Tensor, one_lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    """Attention over two disjoint sets of keys as attention over both, in the precision of the log-sum-exps.

    one, other: [..., e]; one_lse, other_lse: the log-sum-exp of each [...].
    """
    share = torch.sigmoid(other_lse - one_lse)[..., None]
    return torch.lerp(one.to(share.dtype), other.to(share.dtype), share)


def flash(
    q: Tensor, keys: Tensor, values: Tensor, causal: bool, bias: Tensor | None, scaling: float | None
) -> tuple[Tensor, Tensor]:
    """torch's CPU flash kernel with its log-sum-exp. A row that sees nothing must be hidden by a finite minimum."""
    operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    out, lse = operator(q, keys, values, 0.0, causal, attn_mask=bias, scale=scaling)
    return out, lse
