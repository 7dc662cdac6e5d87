"""What becomes of evidence when a prompt is rewritten or cut: exact spans in, exact spans out.

A rewriting says which characters of each segment it kept and where they are now; spans are followed through any
number of rewritings. Knows segments; knows no tokens, no retriever and no model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from loom_core.contract.types import Evidence, Json, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Characters `start` to `end` of segment `segment` that a rewriting kept unaltered; they now begin at `at`."""

    segment: int
    start: int
    end: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """What a prompt augmentation made of a prompt, and what that took.

    kept: the spans of the given prompt that stand in the new one, by segment and start; None where that is not known
    (text was written again), and then nothing is said about evidence. calls: requests to other models (embeddings,
    scorers), read_tokens: tokens they read, cost: money where it is known. index_seconds: the part of the time that
    other questions on the same document need not spend again. tokens_before, tokens_after: of the contexts, by the
    target's tokenizer. facts: what the method wants recorded (chunks in all, chunks kept), the same in any process.
    """

    prompt: Prompt
    kept: tuple[Kept, ...] | None
    calls: int = 0
    read_tokens: int = 0
    cost: float | None = None
    index_seconds: float = 0.0
    tokens_before: int | None = None
    tokens_after: int | None = None
    facts: Mapping[str, Json] = field(default_factory=dict)


Piece = tuple[int, int, int]
"""(segment, start, end): a span of characters."""


def kept_ends(before: Prompt, after: Prompt) -> tuple[Kept, ...] | None:
    """The spans kept by an edit that removed one range of characters from any segment; None if it did anything else.

    Where the removed range is ambiguous (its text repeats), the first of the equal readings is taken: the kept text is
    the same.
    """
    if len(before.segments) != len(after.segments):
        return None
    found: list[Kept] = []
    for i, (old, new) in enumerate(zip(before.segments, after.segments, strict=True)):
        if old.text == new.text:
            found.append(Kept(segment=i, start=0, end=len(old.text), at=0))
            continue
        head = _common_prefix(old.text, new.text)
        tail = len(new.text) - head
        if len(new.text) > len(old.text) or (tail and old.text[-tail:] != new.text[head:]):
            return None
        if head:
            found.append(Kept(segment=i, start=0, end=head, at=0))
        if tail:
            found.append(Kept(segment=i, start=len(old.text) - tail, end=len(old.text), at=head))
    return tuple(found)


def _common_prefix(one: str, other: str) -> int:
    """Length of the common prefix, by halving: each comparison runs in C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Trail:
    """Evidence followed through rewritings. Begins with the spans in the source prompt."""

    def __init__(self, evidence: Iterable[Evidence]) -> None:
        self._lengths: list[int] = []
        self._pieces: list[list[Piece]] = []
        for item in evidence:
            self._lengths.append(item.end - item.start)
            self._pieces.append([(item.segment, item.start, item.end)])

    def __len__(self) -> int:
        return len(self._lengths)

    def follow(self, kept: Sequence[Kept]) -> None:
        """Take one rewriting into account: what of the evidence was not kept is gone."""
        by_segment: dict[int, list[Kept]] = {}
        for span in sorted(kept, key=lambda span: (span.segment, span.start)):
            by_segment.setdefault(span.segment, []).append(span)
        starts = {segment: [span.start for span in spans] for segment, spans in by_segment.items()}
        for number, pieces in enumerate(self._pieces):
            moved: list[Piece] = []
            for segment, start, end in pieces:
                spans = by_segment.get(segment, [])
                first = max(0, bisect_right(starts.get(segment, []), start) - 1)
                for span in spans[first:]:
                    if span.start >= end:
                        break
                    low, high = max(start, span.start), min(end, span.end)
                    if low < high:
                        moved.append((segment, span.at + low - span.start, span.at + high - span.start))
            self._pieces[number] = _joined(moved)

    @property
    def whole(self) -> int:
        """How many pieces of evidence still stand unaltered and in one piece."""
        ends = zip(self._lengths, self._pieces, strict=True)
        return sum(len(pieces) == 1 and pieces[0][2] - pieces[0][1] == length for length, pieces in ends)

    @property
    def share(self) -> float:
        """The share of evidence characters that are left; 1 where there were none."""
        left = sum(end - start for pieces in self._pieces for _, start, end in pieces)
        return left / sum(self._lengths) if sum(self._lengths) else 1.0


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Pieces in order, with those that follow each other directly put together."""
    joined: list[Piece] = []
    for segment, start, end in pieces:
        if joined and joined[-1][0] == segment and joined[-1][2] == start:
            joined[-1] = (segment, joined[-1][1], end)
        else:
            joined.append((segment, start, end))
    return joined
