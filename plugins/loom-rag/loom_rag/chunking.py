"""Text into chunks of tokens with exact character spans, and chosen chunks back into text. The one chunker of loom.

Chunks end at sentences where they can, else at lines, words, and only in text without any of these between two tokens.
No character is altered, doubled or lost: the chunks of a text cover it, and all of them together give it back. Knows a
tokenizer's contract and scripts; knows no retriever.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from loom_core.api import Kept, Tokenizer

GAP = "\n\n"
"""What stands between two kept pieces that did not follow each other."""

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese syllables
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
)
"""Letters of scripts that put no spaces between words, as ranges of a regular expression's character class."""

_ENDS, _CJK_ENDS, _CLOSERS = ".!?…؟۔।॥።", "。！？｡", "\"'”’»)\\]」』）】》〉"
_SENTENCE = re.compile(
    rf"(?<![{_CJK_ENDS}])[{_CJK_ENDS}]+[{_CLOSERS}]*+\s*+"
    # A full stop after an initial or a title ends nothing, and no sign does before a small letter.
    rf"|(?<![{_ENDS}])(?:[{_ENDS[1:]}]|(?<!\b[A-Z])(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bvs)(?<!\bNo)(?<!\bMrs)\.)"
    rf"[{_ENDS}]*+[{_CLOSERS}]*+\s++(?![a-z])"
    r"|\n[^\S\n]*+\n\s*+"
)
_LINE = re.compile(r"\n")
_UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
_ESTIMATED_TOKEN = re.compile(rf"[{UNSPACED}]|\s?[^\s{UNSPACED}]{{1,4}}|\s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Characters `start` to `end` of the segment with that index, which are its tokens `first` to `last`."""

    segment: int
    start: int
    end: int
    first: int
    last: int

    @property
    def n_tokens(self) -> int:
        """Tokens of the chunk where it is in its text."""
        return self.last - self.first


def sentence_ends(text: str) -> list[int]:
    """Where sentences and paragraphs end, white space behind them included; never 0."""
    return [match.end() for match in _SENTENCE.finditer(text)]


def token_starts(text: str, tokenizer: Tokenizer | None) -> list[int]:
    """The character at which each token begins. Without a tokenizer an estimate: 4 characters, or one of a script
    without spaces, are a token."""
    if tokenizer is None:
        return [match.start() for match in _ESTIMATED_TOKEN.finditer(text)]
    return [start for start, _ in tokenizer.offsets(text)[1]]


def chunks(text: str, starts: Sequence[int], *, size: int, overlap: int = 0, segment: int = 0) -> list[Chunk]:
    """The text in chunks of at most `size` tokens, in order; together they cover it.

    starts: see `token_starts`. overlap: each chunk begins up to so many tokens before the end of the last one, at a
    sentence where one begins there, else at a word. Borders lie between characters: a single character of more than
    `size` tokens makes a larger chunk. Raises ValueError for a size below 1 or an overlap that is not below the size.
    """
    if size < 1 or not 0 <= overlap < size:
        raise ValueError(f"chunks of {size} tokens cannot overlap by {overlap}")
    if not text:
        return []
    borders = _Borders(text, starts)
    n, found = len(starts), []
    first = done = 0
    while True:
        last = borders.end(first, done, min(first + size, n), size)
        if last - first > size and first < done:
            # The next character alone fills a chunk: there is no room for what it would share.
            first, last = done, borders.end(done, done, min(done + size, n), size)
        begin, end = (starts[first] if first else 0), (starts[last] if last < n else len(text))
        found.append(Chunk(segment=segment, start=begin, end=end, first=first, last=last))
        if last >= n:
            return found
        first, done = borders.again(last, overlap, first), last


class _Borders:
    """Where a text may be cut, in tokens."""

    def __init__(self, text: str, starts: Sequence[int]) -> None:
        self._text, self._starts, self._n = text, starts, len(starts)
        self._tiers = [self._in_tokens(sentence_ends(text)), self._in_tokens(m.end() for m in _LINE.finditer(text))]

    def _in_tokens(self, places: Iterable[int]) -> list[int]:
        """The tokens that begin at these characters, or next behind them."""
        found: list[int] = []
        for place in places:
            token = bisect_left(self._starts, place, lo=found[-1] if found else 0)
            if 0 < token < self._n and (not found or found[-1] < token):
                found.append(token)
        return found

    def end(self, first: int, done: int, most: int, size: int) -> int:
        """The end of a chunk that begins at token `first` and must go beyond `done`, at most to `most`."""
        if most >= self._n:
            return self._n
        # A chunk is at least a quarter full, or a short sentence before a long one would be a chunk by itself.
        low = max(done, first + size // 4)
        for tier in self._tiers:
            at = bisect_right(tier, most) - 1
            if at >= 0 and tier[at] > low and self._between(tier[at]):
                return tier[at]
        words = (i for i in range(most, low, -1) if self._word(i))
        at = next(words, next((i for i in range(most, done, -1) if self._between(i)), most))
        while at < self._n and not self._between(at):
            at += 1
        return at

    def again(self, last: int, overlap: int, first: int) -> int:
        """Where the chunk after one that began at `first` and ended at `last` begins."""
        low = max(first + 1, last - overlap)
        if low >= last:
            return last
        for tier in self._tiers:
            at = bisect_left(tier, low)
            if at < len(tier) and tier[at] < last and self._between(tier[at]):
                return tier[at]
        words = (i for i in range(low, last) if self._word(i))
        return next(words, next((i for i in range(low, last) if self._between(i)), last))

    def _between(self, token: int) -> bool:
        """True if this token begins a character of its own (bytes of one character may be several tokens)."""
        return token <= 0 or token >= self._n or self._starts[token] > self._starts[token - 1]

    def _word(self, token: int) -> bool:
        """True if a word begins or ends at this token."""
        place = self._starts[token]
        if not self._between(token) or place <= 0:
            return False
        pair = self._text[place - 1 : place + 1]
        return pair[0].isspace() or pair[1:].isspace() or _UNSPACED_CHARACTER.search(pair) is not None


def put_together(texts: Mapping[int, str], chosen: Iterable[Chunk]) -> tuple[dict[int, str], tuple[Kept, ...]]:
    """(new text of each segment, the spans kept): the chosen chunks in the order of their document.

    texts: the segments that were chunked, by index. What chunks share stands once; pieces that did not follow each
    other are set apart by `GAP`; a segment without a chosen chunk becomes empty.
    """
    spans: dict[int, list[tuple[int, int]]] = {segment: [] for segment in texts}
    for chunk in sorted(chosen, key=lambda chunk: (chunk.segment, chunk.start, chunk.end)):
        rows = spans[chunk.segment]
        if rows and chunk.start <= rows[-1][1]:
            rows[-1] = (rows[-1][0], max(rows[-1][1], chunk.end))
        else:
            rows.append((chunk.start, chunk.end))
    made: dict[int, str] = {}
    kept: list[Kept] = []
    for segment, rows in spans.items():
        pieces: list[str] = []
        at = 0
        for start, end in rows:
            if pieces:
                pieces.append(GAP)
                at += len(GAP)
            pieces.append(texts[segment][start:end])
            kept.append(Kept(segment=segment, start=start, end=end, at=at))
            at += end - start
        made[segment] = "".join(pieces)
    return made, tuple(kept)


def n_tokens(chosen: Iterable[Chunk]) -> int:
    """Tokens of the chunks together; what they share counts once, what sets them apart not at all."""
    total, reached = 0, (-1, 0)
    for chunk in sorted(chosen, key=lambda chunk: (chunk.segment, chunk.first, chunk.last)):
        begin = max(chunk.first, reached[1]) if chunk.segment == reached[0] else chunk.first
        total += max(0, chunk.last - begin)
        end = max(chunk.last, reached[1]) if chunk.segment == reached[0] else chunk.last
        reached = (chunk.segment, end)
    return total
