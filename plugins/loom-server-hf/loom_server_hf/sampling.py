"""The next token of each row: greedy, or drawn from the row's own seeded generator. Knows logits, nothing of text.

A draw takes one uniform number per token from a CPU generator, so it depends on the row's seed and logits only, not on
the batch or the device.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Sampler:
    """Chooses one row's tokens. temperature 0 = greedy. top_p: the smallest set of tokens with that much mass."""

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        self.temperature, self.top_p = temperature, top_p
        self._generator = torch.Generator().manual_seed(seed & (2**63 - 1)) if temperature > 0 else None

    @property
    def greedy(self) -> bool:
        """No draw is made."""
        return self._generator is None

    def next(self, logits: Tensor, banned: Iterable[int] = ()) -> int:
        """A token id from logits [V]; banned ids are never chosen."""
        logits = logits.float()
        banned = [token for token in banned if token < logits.shape[0]]
        if banned:
            logits = logits.clone()
            logits[banned] = -torch.inf
        if self._generator is None:
            return int(logits.argmax())
        uniform = torch.rand((), generator=self._generator, dtype=torch.float64)
        return int(_inverse(logits.cpu().double() / self.temperature, self.top_p, uniform))


def _inverse(logits: Tensor, top_p: float, uniform: Tensor) -> Tensor:
    """The token where the cumulative mass of the most likely tokens passes `uniform`; float64 [V] → id."""
    probabilities, order = logits.softmax(dim=-1).sort(descending=True, stable=True)
    mass = probabilities.cumsum(dim=-1)
    # Tokens up to and including the one that reaches top_p.
    inside = int(torch.searchsorted(mass, torch.tensor(top_p, dtype=mass.dtype))) + 1 if top_p < 1 else len(mass)
    mass = mass[:inside]
    place = torch.searchsorted(mass, uniform * mass[-1], right=True).clamp(max=len(mass) - 1)
    return order[place]
