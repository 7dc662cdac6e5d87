"""SnapKV (Li et al. 2024, arXiv:2404.14469): the prompt's last queries choose what the cache keeps.

With w window queries, N prompt tokens and g query heads per KV head, in float32:

    P = softmax(q[-w:] kᵀ / √d)              causal inside the window                    [h, g, w, N]
    s = Σ over the w queries of P[:, :N-w]                                               [h, g, N-w]
    s = reduce over g of pool(s)             pool=before: the paper's order, group added
    s = pool(reduce over g of s)             pool=after                                  [h, N-w]
    keep the B - w largest of s, and the last w tokens; original positions; nothing is evicted while decoding.

The authors' code keeps every query head's own choice of repeated keys, which multiplies the memory by g; here keys are
stored, scored and evicted once per KV head. avg pooling is linear, so with group=mean both orders are equal.
"""

from __future__ import annotations

from loom_kv import WindowPolicy


class SnapKV(WindowPolicy):
    """options: `plugin.SnapKVOptions`. Protects the window."""

    name = "snapkv"
