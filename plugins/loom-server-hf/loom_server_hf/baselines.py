"""The baseline that every eviction method must beat: slots drawn at random. Knows the KV contract only."""

from __future__ import annotations

import hashlib

import torch
from loom_kv import LayerView, Policy
from torch import Tensor


class RandomEviction(Policy):
    """Keeps a uniform sample of the valid tokens, in each layer and KV head independently; protects nothing.

    The draw depends on the request's seed, the option `seed`, the layer and the head, never on the batch.
    """

    name = "random"

    def score(self, view: LayerView) -> Tensor:
        """Uniform numbers [b, h, N]; the drawn ones lie on the valid columns."""
        scores = torch.zeros(len(view.n_valid), view.k.shape[1], view.columns)
        for row, (n, seed) in enumerate(zip(view.n_valid, view.seeds, strict=True)):
            for head in range(view.k.shape[1]):
                key = f"{self.options.seed}/{seed}/{view.layer}/{head}"
                number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
                generator = torch.Generator().manual_seed(number)
                scores[row, head, view.columns - n :] = torch.rand(n, generator=generator)
        return scores.to(view.k.device)
