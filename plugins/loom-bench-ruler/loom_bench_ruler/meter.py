"""Tokens of texts, measured as seldom as possible: a piece once, a sum for the rest. Knows a tokenizer, no task.

Where the server keeps its tokenizer to itself, four characters count as a token.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from loom_core.api import Prompt, Segment, Tokenizer, UsageError, segment
from loom_core.api.serving import Chat, render

CHARACTERS_PER_TOKEN = 4
CHUNK_CHARACTERS = 1 << 16


@dataclass(frozen=True, slots=True)
class Meter:
    """What texts cost under one tokenizer, in tokens."""

    tokenizer: Tokenizer | None
    chat: Chat = "template"
    _pools: dict[tuple[tuple[str, ...], str], Pool] = field(default_factory=dict, repr=False)

    def prompt(self, prompt: Prompt) -> float:
        """The whole prompt as the model sees it, chat template and BOS included."""
        if self.tokenizer is None:
            return len(prompt.text) / CHARACTERS_PER_TOKEN
        return len(render(prompt, self.tokenizer, chat=self.chat).token_ids or ())

    @property
    def meta(self) -> dict[str, bool]:
        """What samples say where lengths are estimated."""
        return {"length_estimated": True} if self.tokenizer is None else {}

    def around(self, family: str) -> int:
        """The tokens that a chat template and BOS add to a prompt; that of cwe has two turns more."""
        turns = [segment("instruction", "a"), segment("prefill", " b")]
        if family == "cwe":
            turns[1:1] = [Segment(kind="instruction", text=" c\n", role="assistant"), segment("instruction", "d")]
        prompt = Prompt(segments=tuple(turns))
        return max(0, int(self.prompt(prompt)) - self.text(prompt.text))

    def text(self, text: str) -> int:
        """A text alone, no special tokens added: what the authors' generators count."""
        if self.tokenizer is None:
            return -(-len(text) // CHARACTERS_PER_TOKEN)
        return len(self.tokenizer.encode(text))

    def pieces(self, pieces: Sequence[str], joint: str) -> list[float]:
        """The tokens of each piece where it is after `joint`, the joint counted with the piece behind it."""
        if self.tokenizer is None:
            return [(len(joint) + len(piece)) / CHARACTERS_PER_TOKEN for piece in pieces]
        costs: list[float] = []
        start = 0
        while start < len(pieces):
            end, size = start, 0
            while end < len(pieces) and size < CHUNK_CHARACTERS:
                size += len(joint) + len(pieces[end])
                end += 1
            costs += self._chunk(pieces[start:end], joint)
            start = end
        return costs

    def _chunk(self, pieces: Sequence[str], joint: str) -> list[float]:
        assert self.tokenizer is not None
        starts = [0, *accumulate(len(joint) + len(piece) for piece in pieces)]
        _, offsets = self.tokenizer.offsets(joint + joint.join(pieces))
        costs = [0.0] * len(pieces)
        i = 0
        for begin, _ in offsets:
            while i + 1 < len(pieces) and begin >= starts[i + 1]:
                i += 1
            costs[i] += 1
        return costs

    def pool(self, pieces: Sequence[str], joint: str) -> Pool:
        """The pieces with their costs, each pool measured once. Raises UsageError where a tokenizer makes next to
        nothing of them."""
        key = (tuple(pieces), joint)
        if (known := self._pools.get(key)) is not None:
            return known
        pool = Pool(pieces, self.pieces(pieces, joint))
        if sum(pool.costs) < len(pieces) / 2:
            raise UsageError(
                "this tokenizer cannot fill a prompt",
                where="ruler",
                why=f"{len(pieces)} pieces of filler give {sum(pool.costs):g} tokens",
                hint="check the model's tokenizer",
            )
        self._pools[key] = pool
        return pool

    def head(self, text: str, room: float) -> tuple[str, float]:
        """The longest beginning of `text`, in whole words, that costs at most `room` where it follows a space; and its
        cost."""
        words = text.split(" ")
        sums = list(accumulate(self.pieces(words, " "), initial=0.0))
        n = bisect_right(sums, max(0.0, room)) - 1
        return " ".join(words[:n]), sums[n]


@dataclass(frozen=True, slots=True)
class Pool:
    """Pieces of filler with their costs in tokens."""

    pieces: Sequence[str]
    costs: Sequence[float]

    @property
    def mean(self) -> float:
        """Tokens a piece."""
        return sum(self.costs) / len(self.costs)


@dataclass(slots=True)
class Strand:
    """Endless filler for one sample: a pool's pieces, cycle after cycle. draw: their order; None keeps the pool's."""

    pool: Pool
    draw: random.Random | None
    _order: list[int] = field(default_factory=list)
    _sums: list[float] = field(default_factory=lambda: [0.0])

    def fit(self, room: float) -> tuple[int, float]:
        """How many pieces fit into `room` tokens, and what they cost together."""
        while self._sums[-1] <= room:
            self._extend()
        n = bisect_right(self._sums, room) - 1
        return n, self._sums[n]

    def take(self, n: int) -> list[str]:
        """The first n pieces."""
        while len(self._order) < n:
            self._extend()
        pieces = self.pool.pieces
        return [pieces[i] for i in self._order[:n]]

    def _extend(self) -> None:
        order = list(range(len(self.pool.pieces)))
        if self.draw is not None:
            self.draw.shuffle(order)
        costs = self.pool.costs
        self._order += order
        self._sums += accumulate((costs[i] for i in order), initial=self._sums.pop())
