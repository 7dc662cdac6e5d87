"""The reference that evicting caches are held against: a dense cache with hidden columns. Knows transformers only.

Independent of the KV host: transformers' own cache, an eager softmax with a mask for each layer and head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from loom_kv import Merge
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache


@torch.inference_mode()
def masked_dense(
    model: Any,
    prompt: Sequence[int],
    kept: Sequence[Any],
    tokens: Sequence[Tensor],
    merges: Sequence[Merge | None] = (),
    held: Sequence[Any] = (),
) -> Tensor:
    """The reference of U2: transformers' own cache, eager softmax, evicted columns hidden per layer and head.

    kept[step][layer][head]: what each token of `tokens` sees beside itself; merges: of each step and layer, if any.
    held[step][layer]: keys and values [h, S, d] of these slots, where a codec has changed them.
    Returns logits [1 + steps, V] of the prompt's end and of each token fed.
    """
    state: dict[str, int] = {"step": -1}

    def attention(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float, **_: Any) -> Any:
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        total, new = k.shape[2], q.shape[2]
        visible = torch.ones(q.shape[1], new, total, dtype=torch.bool).tril(total - new)
        if state["step"] >= 0:
            heads = kept[state["step"]][module.layer_idx]
            for head in range(q.shape[1]):
                hidden = torch.ones(total - 1, dtype=torch.bool)
                hidden[heads[head // group % len(heads)]] = False
                visible[head, :, : total - 1] &= ~hidden
        logits = (q @ k.transpose(2, 3)).float() * scaling
        weights = logits.masked_fill(~visible, -torch.inf).softmax(dim=-1).to(v.dtype)
        return (weights @ v).transpose(1, 2).contiguous(), None

    name = "loom_masked_dense"
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, lambda attention_mask=None, **_: attention_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        cache = DynamicCache(config=model.config)
        layers: Any = cache.layers
        rows = [model(torch.tensor([list(prompt)]), past_key_values=cache, use_cache=True).logits[0, -1]]
        for step, token in enumerate(tokens):
            state["step"] = step
            for layer, (k, v) in enumerate(held[step] if held else ()):
                _replace(layers[layer], kept[step][layer], k, v)
            positions = torch.tensor([[len(prompt) + step]])
            out = model(token[:1], position_ids=positions, past_key_values=cache, use_cache=True)
            rows.append(out.logits[0, -1])
            for layer, merge in enumerate(merges[step * len(cache.layers) : (step + 1) * len(cache.layers)]):
                if merge is not None:
                    _add(layers[layer].values[0], merge, kept[step][layer], len(prompt) + step)
    finally:
        model.set_attn_implementation(before)
    return torch.stack(rows).float()


def _replace(layer: Any, heads: Sequence[Sequence[int]], k: Tensor, v: Tensor) -> None:
    """Keys and values of the only row's slots, written over the cache's."""
    for head, places in enumerate(heads):
        layer.keys[0, head, places] = k[head].to(layer.keys.dtype)
        layer.values[0, head, places] = v[head].to(layer.values.dtype)


def _add(values: Tensor, merge: Merge, heads: Sequence[Sequence[int]], newest: int) -> None:
    """A merge of the only row, on values [h, N, d] at the positions of its slots."""
    for head, line in enumerate(values):
        places = [*heads[head], newest]
        share = merge.shares[0, head, :, None] * line[places[int(merge.source[0, head])]].float()
        line[places] += share.to(line.dtype)
