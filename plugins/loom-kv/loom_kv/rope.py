"""Rotary positions of a model, applied by the host: for caches that keep raw keys. Knows the model's own functions.

Fed with position 0, a model hands the attention function raw queries and keys (times its `attention_scaling`), because
rotation by zero is the identity; nothing has to be un-rotated.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from loom_core.api import ModelError

Tables = tuple[Tensor, Tensor]


class Rope:
    """The rotation of one model. Raises ModelError (rule "rotary") where the model's parts are not found."""

    def __init__(self, base: nn.Module, attention: nn.Module) -> None:
        rotary: Any = getattr(base, "rotary_emb", None)
        module = sys.modules.get(type(attention).__module__)
        self._apply: Any = getattr(module, "apply_rotary_pos_emb", None)
        if not isinstance(rotary, nn.Module) or self._apply is None:
            raise ModelError(
                "this model's rotary embedding is not known to loom",
                where=f"{type(base).__name__} (rule: rotary)",
                why="in-cache positions need `rotary_emb` on the model and `apply_rotary_pos_emb` beside its attention",
                hint="use a form that keeps original positions",
            )
        self._rotary = rotary
        self._scaling = float(getattr(rotary, "attention_scaling", 1.0))

    def tables(self, positions: Tensor) -> Tables:
        """cos and sin for positions [b, n]: float32 [b, n, d], without the attention scaling that raw keys carry."""
        like = torch.empty(0, dtype=torch.float32, device=positions.device)
        cos, sin = self._rotary(like, positions)
        return cos / self._scaling, sin / self._scaling

    def undo(self, x: Tensor, tables: Tables) -> Tensor:
        """The inverse of `rotate`: x [b, h, n, d] as it was before the rotation."""
        cos, sin = tables
        return self.rotate(x, (cos, -sin))

    def rotate(self, x: Tensor, tables: Tables) -> Tensor:
        """x [b, h, n, d] rotated, computed in float32, returned in its own dtype."""
        rotated: Tensor = self._apply(x.float(), x[:, :0].float(), *tables)[0]
        return rotated.to(x.dtype)
