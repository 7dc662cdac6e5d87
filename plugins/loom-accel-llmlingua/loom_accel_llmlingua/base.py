"""What the compressors share: contexts in, kept spans out, counted with the evaluated model's tokenizer.

Every character that is kept is unaltered; nothing is inserted between what is kept. Knows spans; knows no model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from loom_rag import query_of, token_starts

from loom_accel_llmlingua.plugin import CompressionOptions
from loom_core.api import Kept, Prompt, Rewritten, Tokenizer, context_indices, with_texts

Piece: TypeAlias = tuple[int, int, int]
"""(segment, start, end): a span of characters."""
Choice: TypeAlias = Callable[[int], list[Piece]]
"""A number of target tokens → the spans to keep, in the order in which they will stand."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A span that is kept or dropped as a whole. cost: target tokens that begin in it; forced: always kept."""

    piece: Piece
    cost: int
    score: float
    forced: bool = False


class Source:
    """The contexts of a prompt and where the target's tokens begin in them."""

    def __init__(self, texts: Mapping[int, str], tokenizer: Tokenizer | None) -> None:
        self.texts = texts
        self._tokenizer = tokenizer
        self._starts = {i: token_starts(text, tokenizer) for i, text in texts.items()}

    def cost(self, piece: Piece) -> int:
        """Target tokens that begin in a span."""
        segment, start, end = piece
        starts = self._starts[segment]
        return bisect_left(starts, end) - bisect_left(starts, start)

    def starts(self, segment: int) -> Sequence[int]:
        """Where the tokens of a segment begin."""
        return self._starts[segment]

    @property
    def n_tokens(self) -> int:
        """Target tokens of all contexts."""
        return sum(map(len, self._starts.values()))

    def count(self, texts: Iterable[str]) -> int:
        """Target tokens of other texts."""
        return sum(len(token_starts(text, self._tokenizer)) for text in texts)


class Compressor(ABC):
    """A prompt augmentation that keeps a share of the context's tokens. Subclasses give `choice`.

    attempts: how often another choice is made where what was kept takes more tokens than it did in its place.
    """

    attempts = 1

    def __init__(self, options: CompressionOptions) -> None:
        self._rate = options.rate
        self.read_tokens = 0

    @abstractmethod
    def load(self) -> None:
        """Open the scoring model. Raises ModelError."""

    @abstractmethod
    def unload(self) -> None:
        """Let go of it."""

    @abstractmethod
    def choice(self, source: Source, question: str) -> Choice:
        """How these contexts are compressed; counts what the scorer reads in `read_tokens`."""

    @contextmanager
    def open(self, tokenizer: Tokenizer | None) -> Iterator[None]:
        """Hold the scoring model until closed."""
        self.load()
        try:
            yield
        finally:
            self.unload()

    def rewrite(
        self, prompt: Prompt, tokenizer: Tokenizer | None, *, chat: Literal["template", "completion"] = "template"
    ) -> Rewritten:
        """The prompt with compressed contexts. A rate of 1, or an empty context, changes nothing."""
        self.read_tokens = 0
        texts = {i: prompt.segments[i].text for i in context_indices(prompt)}
        source = Source(texts, tokenizer)
        before = source.n_tokens
        target = int(self._rate * before + 1e-9)
        made: dict[int, str] = dict(texts)
        kept = [Kept(segment=i, start=0, end=len(s.text), at=0) for i, s in enumerate(prompt.segments)]
        if before and self._rate < 1:
            choose, quota = self.choice(source, query_of(prompt)), target
            for _ in range(self.attempts):
                made, spans = put_together(texts, choose(quota))
                if (now := source.count(made.values())) <= target or not quota:
                    break
                quota = min(quota - 1, quota * target // now)
            kept = [one for one in kept if one.segment not in texts] + spans
        after = source.count(made.values())
        return Rewritten(
            prompt=with_texts(prompt, made),
            kept=tuple(sorted(kept, key=lambda one: (one.segment, one.start))),
            calls=int(self.read_tokens > 0),
            read_tokens=self.read_tokens,
            tokens_before=before,
            tokens_after=after,
            facts={"asked": self._rate, "rate": round(after / before, 6) if before else None},
        )


def put_together(texts: Mapping[int, str], pieces: Iterable[Piece]) -> tuple[dict[int, str], list[Kept]]:
    """(new text of each segment, the spans kept): pieces one after the other; neighbours become one span."""
    rows: dict[int, list[list[int]]] = {segment: [] for segment in texts}
    for segment, start, end in pieces:
        if rows[segment] and rows[segment][-1][1] == start:
            rows[segment][-1][1] = end
        else:
            rows[segment].append([start, end])
    made, kept = dict[int, str](), list[Kept]()
    for segment, spans in rows.items():
        at = 0
        for start, end in spans:
            kept.append(Kept(segment=segment, start=start, end=end, at=at))
            at += end - start
        made[segment] = "".join(texts[segment][start:end] for start, end in spans)
    return made, kept


def best(units: Sequence[Unit], quota: int) -> list[int]:
    """The units to keep, in their order: the forced ones, then by score while the next one fits; ties: the earlier."""
    chosen = {i for i, unit in enumerate(units) if unit.forced}
    left = quota - sum(units[i].cost for i in chosen)
    for i in sorted(range(len(units)), key=lambda i: (-units[i].score, i)):
        if i in chosen:
            continue
        if units[i].cost > left:
            break
        chosen.add(i)
        left -= units[i].cost
    return sorted(chosen)
