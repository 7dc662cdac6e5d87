"""TOVA (Oren et al. 2024, arXiv:2401.06104): Token Omission Via Attention.

For each layer, over the T tokens held, the newest one (with query q) included, and all H query heads, in float32:

    s_j = 1/H Σ over heads of softmax(q kᵀ / √d)_j          one ranking for the whole layer           [T]
    keep the B - 1 largest of s, and the newest token; original positions.

form=decode    after the prompt, and again after each decoding step once B tokens are held (the paper's): one slot goes.
form=prefill   once, after the prompt (as NVIDIA/kvpress does); the cache grows while decoding.

In both the prompt itself is read with full attention; its last token makes the first ranking.
"""

from __future__ import annotations

from loom_kv import LayerView, Need, Policy, StepsDecode, StepView, window_attention
from torch import Tensor


class TOVA(Policy):
    """options: `plugin.TOVAOptions`. Protects the newest token."""

    name = "tova"

    @property
    def need(self) -> Need:
        """The newest query."""
        return Need(window=1)

    @property
    def steps(self) -> StepsDecode | None:
        """Each step of decoding, where it evicts there."""
        return self if self.options.form == "decode" else None

    @property
    def shares_prefix(self) -> bool:
        """Of the prompt, only the newest query is looked at."""
        return True

    @property
    def last(self) -> int:
        """The newest token, which made the ranking."""
        return 1

    def score(self, view: LayerView) -> Tensor:
        """Attention of the newest query, averaged over all query heads: [b, 1, N]."""
        return window_attention(view).mean(dim=(1, 2))

    def step(self, view: StepView) -> Tensor:
        """The same of the new token's query: [b, 1, S]."""
        return view.weights.mean(dim=(1, 2))[:, None]
