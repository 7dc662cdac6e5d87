"""What a method is that picks prompt tokens before the model reads: an early layer scores, the model reads anew.

A picker chooses no cache slots: the whole model reads the picked tokens alone, at positions 0, 1, 2, … The host
(`loom_server_hf.picking`) runs the early layers and hands over what they saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from loom_core.api import Budget
from loom_kv.views import Geometry


@dataclass
class Picker:
    """Base of methods that pick the target's own prompt tokens. options: with a field `budget`, in tokens kept."""

    options: Any

    name: ClassVar[str] = ""

    @property
    def asked(self) -> Budget:
        """The budget as the user gave it."""
        budget: Budget = self.options.budget
        return budget

    def keep(self, n: int, geometry: Geometry) -> int:
        """How many of n prompt tokens are read by the whole model."""
        return min(n, self.asked.slots(n, geometry.bytes_per_token))

    def layer(self, layers: int) -> int:
        """The layer whose attention scores the prompt, from 0; the layers behind it do not read the whole prompt."""
        raise NotImplementedError

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """Float32 scores [N] of the prompt tokens, higher = picked.

        query: [H, d], of the last prompt token. keys: [h, N, d]. Both after the rotary embedding; KV head i serves
        query heads i·g to (i + 1)·g - 1, g = H / h.
        """
        raise NotImplementedError
