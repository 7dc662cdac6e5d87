"""Layers that share one budget: earlier ones are cut again as later ones are read. Knows stores and policies.

Until the last layer is read, the scores of what each layer still holds are kept too, so that a layer can be cut as
often as its share shrinks; then the cache never holds more than the whole budget and one layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from loom_kv.choose import choose
from loom_kv.store import DenseStore
from loom_kv.views import Allotment


class Cascade:
    """Scores [b, h or 1, slots] and slots of each row, of all layers read so far."""

    def __init__(self) -> None:
        self.scores: list[Tensor] = []
        self.counts: list[list[int]] = []

    def add(self, scores: Tensor, n_valid: Sequence[int]) -> None:
        """The next layer, which holds its whole prompt."""
        self.scores.append(scores)
        self.counts.append(list(n_valid))

    def cut(self, stores: Sequence[DenseStore], shares: Sequence[Sequence[int]], allotment: Allotment) -> None:
        """Cut the layers read so far to shares[layer][row]; protected slots as `allotment` says."""
        for layer, slots in enumerate(shares):
            held = Allotment(slots=slots, first=allotment.first, last=allotment.last)
            choice = choose(self.scores[layer], self.counts[layer], held)
            if choice is None:
                continue
            lanes = max(choice.index.shape[1], self.scores[layer].shape[1])
            index = choice.index.expand(-1, lanes, -1)
            self.scores[layer] = self.scores[layer].expand(-1, lanes, -1).gather(2, index)
            self.counts[layer] = [row[0] for row in held.table(self.counts[layer], 1)]
            stores[layer].keep(choice)
