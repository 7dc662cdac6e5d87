"""TOVA (Oren et al. 2024, arXiv:2401.06104): Token Omission Via Attention.

For each layer, over N prompt tokens and all H query heads, in float32:

    s_j = 1/H Σ over heads of softmax(q[N-1] kᵀ / √d)_j          one ranking for the whole layer           [N]
    keep the B - 1 largest of s, and the newest token; original positions.

Evicts once, when the prompt has been read (as NVIDIA/kvpress does); the cache grows while decoding.
"""

from __future__ import annotations

from loom_server_hf.kv import LayerView, Need, Policy, window_attention
from torch import Tensor


class TOVA(Policy):
    """options: `plugin.TOVAOptions`. Protects the newest token."""

    name = "tova"

    @property
    def need(self) -> Need:
        """The newest query."""
        return Need(window=1)

    @property
    def last(self) -> int:
        """The newest token, which made the ranking."""
        return 1

    def score(self, view: LayerView) -> Tensor:
        """Attention of the newest query, averaged over all query heads: [b, 1, N]."""
        return window_attention(view).mean(dim=(1, 2))
