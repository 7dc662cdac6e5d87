"""L2 compression (Devoto et al. 2024, arXiv:2406.11430): keys with a small norm are the ones that get attention.

For each layer and KV head, over N prompt tokens:

    s_j = -‖k_j‖₂                in float32; rotation keeps norms, so before and after RoPE is the same   [h, N]
                                 (17 bits of it: norms that differ by float32 noise only are equal)
    keep the B largest of s      no window, no sinks; original positions; nothing is evicted while decoding.

Layers in `skip_layers` keep everything, and so do prompts shorter than `prune_after`. Norms of layer 0 depend on the
token id alone, and a model that normalises its keys may give all of them one norm: such ties would be broken by the
last bits, which depend on how the prompt was cut into chunks. So norms are rounded to 4 to 8 parts in a million before
they are compared, and equal ones go to the later token.
"""

from __future__ import annotations

import math

import torch
from loom_kv import Allotment, LayerView, Policy
from torch import Tensor

BITS = 17
"""Bits of a norm that are compared. float32 has 24; sums over a head and other chunks move the last three or four."""


class L2Compress(Policy):
    """options: `plugin.L2CompressOptions`. Protects nothing."""

    name = "l2compress"

    def slots(self, n_valid: int) -> int:
        """The budget of a compressed layer; with rounding=ceil a ratio is rounded up in floating point, as there."""
        ratio = self.asked.ratio
        if self.options.rounding == "ceil" and ratio is not None:
            return math.ceil(ratio * n_valid)
        return super().slots(n_valid)

    def budget(self, view: LayerView) -> Allotment:
        """Everything in skipped layers and of short prompts, otherwise the budget."""
        skipped = view.layer in self.options.skipped
        return Allotment(slots=[n if skipped or self._short(n) else self.slots(n) for n in view.n_valid])

    def score(self, view: LayerView) -> Tensor:
        """The negative norm of each key: [b, h, N]."""
        norms: Tensor = torch.linalg.vector_norm(view.k.float(), dim=-1)
        mantissa, exponent = torch.frexp(norms)
        return -torch.ldexp(torch.round(mantissa * 2**BITS), exponent - BITS)

    def most_slots(self, n_valid: int) -> int:
        """The budget in compressed layers, the prompt in skipped ones."""
        layers, heads = self.geometry.layers, self.geometry.kv_heads
        skipped: int = sum(layer < layers for layer in self.options.skipped)
        slots = n_valid if self._short(n_valid) else min(self.slots(n_valid), n_valid)
        return heads * (skipped * n_valid + (layers - skipped) * slots)

    def notes(self, n_valid: int) -> tuple[str, ...]:
        """A prompt that is left alone, or layers that are."""
        if self._short(n_valid):
            return (f"dense: the prompt of {n_valid} tokens is shorter than prune_after={self.options.prune_after}",)
        return super().notes(n_valid)

    def _short(self, n_valid: int) -> bool:
        return bool(n_valid < self.options.prune_after)
