"""Expected attention (Devoto et al. 2025, arXiv:2510.00636; NVIDIA/kvpress): scores from what queries usually are.

With the prompt's queries q before RoPE, the first `sinks` of them left out, per query head, in float32:

    μ, Σ   mean and covariance of q                     R̄ = mean rotation over positions N .. N + future - 1
    z_j = scaling·(R̄μ)·k_j + scaling²/2 · k_jᵀ(R̄ΣR̄ᵀ)k_j     the log of E[exp(scaling·q·k_j)] for Gaussian q
    s_j = (mean over the group of softmax(z)_j + ε)·‖v_j‖    softmax over all tokens but the sinks

Statistics are gathered chunk by chunk (Chan's update), so the prompt's queries are never held together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from loom_kv import LayerView, QueryChunk
from torch import Tensor


@dataclass
class _Moments:
    """count [b], mean [b, H, d] and sum of squares about the mean [b, H, d, d] (None without covariance)."""

    count: Tensor
    mean: Tensor
    squares: Tensor | None


@dataclass
class ExpectedAttention:
    """The score and its running statistics of one batch, a set per layer that lives until the layer is scored."""

    sinks: int
    future: int
    covariance: bool
    value_norm: bool
    epsilon: float
    moments: dict[int, _Moments] = field(default_factory=dict)

    def observe(self, chunk: QueryChunk) -> None:
        """Take a chunk of queries into the layer's statistics; padding and sinks are left out."""
        counted = (chunk.positions >= self.sinks)[:, None, :, None]
        count = counted.sum(dim=2).float()
        own = chunk.queries.masked_fill(~counted, 0.0)
        mean = own.sum(dim=2) / count.clamp(min=1.0)
        squares = None
        if self.covariance:
            centred = (own - mean[:, :, None]).masked_fill(~counted, 0.0)
            squares = centred.mT @ centred
        past = self.moments.get(chunk.layer)
        if past is not None:
            total = (past.count + count).clamp(min=1.0)
            step = mean - past.mean
            if squares is not None and past.squares is not None:
                weight = (past.count * count / total)[..., None]
                squares = past.squares + squares + weight * step[..., :, None] * step[..., None, :]
            mean = past.mean + step * (count / total)
            count = past.count + count
        self.moments[chunk.layer] = _Moments(count, mean, squares)

    def score(self, view: LayerView) -> Tensor:
        """[b, h, N]; zero on padding and sinks. Takes the layer's statistics away."""
        mean, covariance = self._future(view, self.moments.pop(view.layer))
        rows, heads, columns, dim = view.k.shape
        keys = view.k.float()
        group = mean.shape[1] // heads
        mean = mean.view(rows, heads, group, dim)
        hidden = view.positions < self.sinks
        total = keys.new_zeros(rows, heads, columns)
        # One query head of each group at a time: k Σ for all of them would be the group's size times the keys.
        for member in range(group):
            logits = (keys @ mean[:, :, member, :, None])[..., 0] * view.scaling
            if covariance is not None:
                sigma = covariance.view(rows, heads, group, dim, dim)[:, :, member]
                logits = logits + (keys @ sigma * keys).sum(dim=-1) * (view.scaling**2 / 2)
            total += logits.masked_fill(hidden, -torch.inf).softmax(dim=-1)
        scores = total / group
        if self.value_norm:
            norms: Tensor = torch.linalg.vector_norm(view.v.float(), dim=-1)
            scores = (scores + self.epsilon) * norms
        return scores.masked_fill(hidden, 0.0)

    def _future(self, view: LayerView, moments: _Moments) -> tuple[Tensor, Tensor | None]:
        """Mean [b, H, d] and covariance [b, H, d, d] of the queries to come, rotated by the mean future rotation."""
        assert view.rope is not None
        start = torch.tensor(view.n_valid, device=view.k.device)[:, None]
        cos, sin = view.rope.tables(start + torch.arange(self.future, device=view.k.device))
        tables = cos.mean(dim=1, keepdim=True), sin.mean(dim=1, keepdim=True)
        mean = view.rope.rotate(moments.mean[:, :, None], tables)[:, :, 0]
        if moments.squares is None:
            return mean, None
        covariance = moments.squares / moments.count.clamp(min=1.0)[..., None]
        # Rotation acts on rows; the covariance is symmetric, so rotating both sides is rotating, turning, rotating.
        return mean, view.rope.rotate(view.rope.rotate(covariance, tables).mT, tables)
