"""Ada-KV (Feng et al. 2024, arXiv:2407.11550): the KV heads of a layer share h·B slots according to their scores.

With budget B per head, h KV heads, p protected slots a head (SnapKV's window, or the sinks), and base scores s [h, N]:

    rule=official   F = B - p
                    c_i = how many of the h·F largest unprotected scores of the layer lie in head i
                    head i keeps round(c_i·(1 - floor) + int(F·floor)) + p slots, half to even
                    normalize: before they are compared, scores of a head are multiplied by the share of its sum that
                    its F largest hold.
    rule=kvpress    the int(B·floor) best of each head are sure, protected ones first; the rest of the h·B slots go to
                    the largest scores of the layer. The layer keeps h·B exactly.

Each head then keeps its own best. With rule=official a layer may hold up to h/2 slots more than h·B (round), or up to
3h/2 fewer (round and int). Heads of unequal size are stored ragged by the host, so what is not kept is free. Original
positions; nothing is evicted while decoding. Scores are compared across heads as they are, so a base must give all
heads the same scale (window attention and expected attention do: both are probabilities).
"""

from __future__ import annotations

import torch
from loom_kv import Allotment, Geometry, LayerView, Need, ObservesQueries, QueryChunk, SharesHeads, WindowPolicy
from torch import Tensor

from loom_accel_adakv.expected import ExpectedAttention


def shares(scores: Tensor, total: int) -> Tensor:
    """How many of the `total` largest of all scores [h, n] lie in each head: int64 [h].

    Equal scores at the cut go to the later token, then to the later head.
    """
    cut = scores.flatten().topk(total).values[-1] if total else scores.new_tensor(torch.inf)
    above, level = scores > cut, scores == cut
    # Flipped in both directions and read token by token, equal scores are met in their order of preference.
    rank = level.flip(0, 1).T.flatten().cumsum(0).view(scores.shape[1], -1).T.flip(0, 1)
    taken = above | (level & (rank <= total - above.sum()))
    return taken.sum(dim=1)


def official(scores: Tensor, free: int, floor: float, normalize: bool) -> Tensor:
    """Slots of each head by the authors' rule, protected ones not counted. scores: unprotected ones [h, n]."""
    heads = scores.shape[0]
    if normalize:
        best = scores.topk(free, dim=1).values.sum(dim=1, keepdim=True)
        total = scores.sum(dim=1, keepdim=True)
        scores = scores * (best / total.clamp(min=torch.finfo(total.dtype).tiny))
    return torch.round(shares(scores, heads * free) * (1 - floor) + int(free * floor)).long()


def kvpress(scores: Tensor, slots: int, floor: float) -> Tensor:
    """Slots of each head by kvpress's rule. scores [h, n]: of all valid tokens, +inf on protected ones."""
    sure = int(slots * floor)
    if sure:
        best = scores.topk(sure, dim=1).indices
        scores = scores.scatter(1, best, torch.inf)
    return shares(scores, scores.shape[0] * slots)


class AdaKV(WindowPolicy):
    """options: `plugin.AdaKVOptions`. Protects the window (base=snapkv) or the sinks (base=expected-attention)."""

    name = "adakv"

    @property
    def need(self) -> Need:
        """The window's queries."""
        return super().need if self.options.base == "snapkv" else Need()

    @property
    def observes(self) -> ObservesQueries | None:
        """Expected attention looks at the raw queries of the whole prompt."""
        return self if self.options.base == "expected-attention" else None

    @property
    def shares_heads(self) -> SharesHeads:
        """Always."""
        return self

    @property
    def first(self) -> int:
        """The sinks of expected attention."""
        return 0 if self.options.base == "snapkv" else int(self.options.sinks)

    @property
    def last(self) -> int:
        """SnapKV's window."""
        return super().last if self.options.base == "snapkv" else 0

    def start(self, geometry: Geometry) -> None:
        """Forget everything: a new batch begins."""
        super().start(geometry)
        options = self.options
        self._expected = ExpectedAttention(
            sinks=options.sinks,
            future=options.future,
            covariance=options.covariance,
            value_norm=options.value_norm,
            epsilon=options.epsilon,
        )

    def observe(self, chunk: QueryChunk) -> None:
        """Statistics of the queries, for expected attention."""
        self._expected.observe(chunk)

    def score(self, view: LayerView) -> Tensor:
        """The base's scores: [b, h, N]."""
        return self._expected.score(view) if self.options.base == "expected-attention" else super().score(view)

    def allot(self, view: LayerView, scores: Tensor, allotment: Allotment) -> Allotment:
        """The heads' shares of each row."""
        rows = []
        for row, n in enumerate(view.n_valid):
            slots = self.slots(n)
            own = scores[row, :, view.columns - n :]
            rows.append([n] * own.shape[0] if slots >= n else self._heads(own, slots))
        return Allotment(slots=rows, first=self.first, last=self.last)

    def _heads(self, scores: Tensor, slots: int) -> list[int]:
        """Slots of each head of one row; scores [h, n] of its valid tokens."""
        n, first, last = scores.shape[1], self.first, self.last
        if self.options.rule == "official":
            free = slots - first - last
            counts = official(scores[:, first : n - last], free, self.options.floor, self.options.normalize)
            counts = counts + first + last
        else:
            scores = scores.clone()
            scores[:, :first] = torch.inf
            scores[:, n - last :] = torch.inf
            counts = kvpress(scores, slots, self.options.floor)
        heads: list[int] = counts.tolist()
        return heads

    def most_slots(self, n_valid: int) -> int:
        """The budget; with rule=official half a slot more for each head, for its rounding."""
        most = super().most_slots(n_valid)
        if self.options.rule == "official" and self.slots(n_valid) < n_valid:
            most += self.geometry.layers * (self.geometry.kv_heads // 2)
        return most
