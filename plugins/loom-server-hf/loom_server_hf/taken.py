"""Requests in hand, and which of them fit one batch. Knows lengths, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import Request

SPREAD = 1.5
"""In one batch, the longest prompt has at most this many times the tokens of the shortest, so padding stays small."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A request in hand, its token ids, and when it was taken from the queue."""

    request: Request
    ids: tuple[int, ...]
    queued: float

    @property
    def n_tokens(self) -> int:
        """Prompt and answer together, at most."""
        return len(self.ids) + self.request.generation.max_tokens


def buckets(taken: Sequence[Taken]) -> list[list[Taken]]:
    """The requests sorted by length, longest first, cut where the next would be padded too much."""
    groups: list[list[Taken]] = []
    for item in sorted(taken, key=lambda item: -len(item.ids)):
        if groups and len(groups[-1][0].ids) <= SPREAD * len(item.ids):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups
