"""A cache that is cut at every decoding step: its policy sees each step's attention. Knows policies, no model.

While the prompt is read this is a dense store. Then every token is attended explicitly, since its probabilities are
wanted; the policy scores all slots anew, may merge values, and the lowest slots go until each row holds its allotment.
So no more than the allotment and the newest token is ever held. Several new tokens are taken one after another: what a
token may see is decided by the tokens before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loom_kv.choose import Choice, drop
from loom_kv.roles import Merges, StepsDecode
from loom_kv.store import DenseStore
from loom_kv.views import Allotment, Geometry, StepView


class DecodeStore(DenseStore):
    """One layer's keys, values and scores. The host calls `settle` once, after the prefill.

    geometry: as `StepView` shows it. seeds: of each row. steps, merges: who scores the slots, and who merges values.
    failed: rows whose scores were NaN or infinite at some step [b], or None before the first step.
    """

    def __init__(
        self,
        layer: int,
        geometry: Geometry,
        n_valid: Sequence[int],
        seeds: Sequence[int],
        room: int,
        steps: StepsDecode,
        merges: Merges | None,
    ) -> None:
        super().__init__(n_valid, room)
        self.layer, self.geometry = layer, geometry
        self.steps, self.merges = steps, merges
        self.seeds = list(seeds)
        self.allotment: Allotment | None = None
        self.scores: Tensor = torch.empty(0)
        self.counts: list[int] = []
        self.failed: Tensor | None = None

    def settle(self, scores: Tensor, choice: Choice | None, allotment: Allotment) -> None:
        """The prompt is read: keep `choice` of it (None = all), with its scores [b, h or 1, N]."""
        self.allotment = allotment
        self.counts = [row[0] for row in allotment.table(self.n_valid, 1)]
        if choice is None:
            self.scores = scores.clone()
            return
        index = choice.index.expand(-1, max(choice.index.shape[1], scores.shape[1]), -1)
        self.scores = scores.expand(-1, index.shape[1], -1).gather(2, index)
        self.keep(choice)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """See `Store.attend`; after the prompt, one token after another."""
        if self.allotment is None:
            return super().attend(q, k, v, scaling)
        steps = [
            self._step(q[:, :, t : t + 1], k[:, :, t : t + 1], v[:, :, t : t + 1], scaling, self.allotment)
            for t in range(q.shape[2])
        ]
        return steps[0] if len(steps) == 1 else torch.cat(steps, dim=1)

    def _step(self, q: Tensor, k: Tensor, v: Tensor, scaling: float | None, allotment: Allotment) -> Tensor:
        """One new token of each row: [b, 1, H, e]."""
        self._append(k, v)
        self.counts = [count + 1 for count in self.counts]
        rows, heads, length, dim = *self.k.shape[:2], self.length, q.shape[3]
        held = torch.arange(length, device=q.device) >= self._missing()[:, :1, None]
        queries = q.reshape(rows, heads, -1, dim).float() * (dim**-0.5 if scaling is None else scaling)
        logits = queries @ self.k.narrow(2, 0, length).float().transpose(2, 3)
        if self.missing is not None:
            logits = logits.masked_fill(~held[:, :, None], torch.finfo(torch.float32).min)
        weights = logits.softmax(dim=-1)
        out = weights.to(v.dtype) @ self.v.narrow(2, 0, length)
        self._evict(weights, held, allotment)
        return out.reshape(rows, 1, q.shape[1], -1)

    def _missing(self) -> Tensor:
        if self.missing is None:
            return torch.zeros(self.k.shape[0], 1, dtype=torch.int64, device=self.k.device)
        return self.missing

    def _evict(self, weights: Tensor, held: Tensor, allotment: Allotment) -> None:
        """Let the policy score the slots, merge, and drop."""
        view = StepView(
            layer=self.layer,
            weights=weights,
            scores=torch.nn.functional.pad(self.scores, (0, 1)),
            held=held,
            newest=tuple(n + self._tokens() - 1 for n in self.n_valid),
            n_held=tuple(self.counts),
            allotment=allotment,
            seeds=tuple(self.seeds),
            geometry=self.geometry,
        )
        scores = self.steps.step(view).float()
        wrong = ~torch.isfinite(scores) & held
        failed = wrong.flatten(1).any(dim=1)
        self.failed = failed if self.failed is None else self.failed | failed
        self.scores = scores.masked_fill(wrong, 0.0)
        choice = drop(self.scores, self.counts, allotment)
        self._merge(view, choice)
        if choice is not None:
            self.scores = self.scores.gather(2, choice.index)
            self.counts = [row[0] for row in allotment.table(self.counts, 1)]
            self.keep(choice, spare=max(1, self.capacity - choice.index.shape[2]))

    def _tokens(self) -> int:
        """Tokens decoded so far."""
        return self.n_decoded + self.length - (self.width if self.kept is None else self.kept.shape[2])

    def _merge(self, view: StepView, choice: Choice | None) -> None:
        if self.merges is None:
            return
        kept = view.held.expand(-1, self.scores.shape[1], -1)
        if choice is not None:
            stays = torch.zeros_like(kept, dtype=torch.int8).scatter_(2, choice.index, 1)
            kept = kept & (stays > 0)
        merge = self.merges.merge(view, kept)
        if merge is None:
            return
        values = self.v.narrow(2, 0, self.length)
        source = values.gather(2, merge.source[:, :, None, None].expand(-1, -1, 1, values.shape[3]))
        values += (merge.shares[..., None] * source.float()).to(values.dtype)

    def _grow(self, k: Tensor, v: Tensor, end: int) -> None:
        """No further than the allotment and one new token."""
        room = self.room
        if self.allotment is not None:
            most = max(row[0] for row in self.allotment.table([end] * len(self.n_valid), 1))
            self.room = max(1, min(room, most + 2 - end))
        super()._grow(k, v, end)
        self.room = room

    def tensors(self) -> list[Tensor]:
        """See `Store.tensors`."""
        return [*super().tensors(), self.scores]

    def take(self, rows: Sequence[int]) -> None:
        """See `Store.take`."""
        before = self.length
        super().take(rows)
        self.seeds = [self.seeds[row] for row in rows]
        index = torch.tensor(rows, device=self.k.device)
        if self.failed is not None:
            self.failed = self.failed.index_select(0, index)
        if self.allotment is None:
            return
        self.counts = [self.counts[row] for row in rows]
        self.scores = self.scores[:, :, before - self.length :].index_select(0, index)
        self.allotment = self.allotment.take(rows)
