"""How long the prompts of a plan are: how they fit the window, how many tokens each arm takes. Knows numbers only."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

from loom_core.contract.types import Json

EDGES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Upper ends of the histogram's classes: prompt and longest answer as a share of the window; the last class is open."""


@dataclass
class Sizes:
    """Lengths of prompts as they stream by. window: of the model, None = unknown. batch: answers computed together."""

    window: int | None
    batch: int = 1
    classes: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))
    longest: list[int] = field(default_factory=list)
    arms: dict[str, list[int]] = field(default_factory=dict)

    def measure(self, length: int, answer: int) -> None:
        """A sample of `length` prompt tokens with at most `answer` new ones."""
        if self.window:
            share = (length + answer) / self.window
            self.classes[next((i for i, edge in enumerate(EDGES) if share <= edge), len(EDGES))] += 1

    def ask(self, arm: str, length: int, answer: int) -> None:
        """An answer that is planned; a prompt that is too long is cut to what fits."""
        if self.window:
            length = max(0, min(length, self.window - answer))
        counts = self.arms.setdefault(arm, [0, 0, 0])
        for i, value in enumerate((1, length, answer)):
            counts[i] += value
        if len(self.longest) < self.batch:
            heapq.heappush(self.longest, length + answer)
        else:
            heapq.heappushpop(self.longest, length + answer)

    def to_json(self, kv_bytes_per_token: int | None) -> dict[str, Json]:
        """histogram: {over, up_to (shares of the window; None = no end), n}; arms: {n, tokens_in, tokens_out_most};
        batch_kv_bytes: dense keys and values of the longest batch.
        """
        ends = [*EDGES, None]
        rows = [
            {"over": low, "up_to": high, "n": n}
            for low, high, n in zip([0.0, *EDGES], ends, self.classes, strict=True)
            if self.window
        ]
        return {
            "histogram": rows,
            "batch": self.batch,
            "batch_kv_bytes": sum(self.longest) * kv_bytes_per_token if kv_bytes_per_token else None,
            "arms": {
                name: {"n": n, "tokens_in": n_in, "tokens_out_most": n_out}
                for name, (n, n_in, n_out) in self.arms.items()
            },
        }


def batch_of(server_options: Any) -> int:
    """How many answers a server computes together, by its options; 1 where it does not say."""
    batch = getattr(server_options, "batch", 1)
    return batch if isinstance(batch, int) and batch > 0 else 1
