"""A long text, measured once, cut at any length, with needles put between its sentences. Knows no model.

Source of the rules: LLMTest_NeedleInAHaystack, llm_needle_haystack_tester.py and llm_multi_needle_haystack_tester.py: a
needle stands at int(tokens · depth), moved back to the end of a sentence; several are spread evenly from the depth to
the end. A sentence ends at a token that is a full stop (TokenHaystack), or at one before white space (Haystack).
"""

from __future__ import annotations

import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from loom_core.api import Tokenizer

CHARACTERS_PER_TOKEN = 4
CHUNK_CHARACTERS = 1 << 16
ENDS = re.compile(r"\.(?=\s)")


@cache
def own_sentences() -> tuple[str, ...]:
    """The sentences written for loom: no digits, none twice."""
    return tuple(files(__package__).joinpath("filler.txt").read_text("utf-8").splitlines())


def own_text(draw: random.Random, characters: int) -> str:
    """loom's sentences in a new random order each time all have been used, at least that many characters."""
    order, parts, length = list(own_sentences()), list[str](), 0
    while length < characters:
        draw.shuffle(order)
        parts += order
        length += sum(len(sentence) + 1 for sentence in order)
    return " ".join(parts)


def repeated(texts: Iterable[str], characters: int) -> str:
    """The texts one after the other, again from the first where they are too short."""
    whole = "".join(texts)
    return whole * (characters // max(1, len(whole)) + 1)


class TokenHaystack:
    """The authors' haystack in the tokens of a model (generate_context): cut to a length, read back as text, tokenised
    anew, cut again by buffer and needle; the needle stands behind the last token that is a full stop alone."""

    def __init__(self, texts: Iterable[str], tokenizer: Tokenizer, longest: int) -> None:
        """The texts one after the other, as often as `longest` tokens need. Raises ValueError where they hold none."""
        whole = text = "".join(texts)
        self._tokenizer, self._tokens = tokenizer, tokenizer.encode(text)
        if not self._tokens:
            raise ValueError("the haystack's texts have no token")
        while len(self._tokens) < longest:
            text += whole
            self._tokens = tokenizer.encode(text)
        self._stops = frozenset(tokenizer.encode("."))
        self._cut: dict[int, list[int]] = {}

    def _of(self, length: int) -> list[int]:
        if length not in self._cut:
            longer = len(self._tokens) > length
            text = self._tokenizer.decode(self._tokens[:length]) if longer else ""
            self._cut[length] = self._tokenizer.encode(text) if longer else self._tokens
        return self._cut[length]

    def hide(self, length: int, buffer: int, needle: str, percent: int) -> tuple[str, tuple[int, int]]:
        """A text of length - buffer tokens with the needle at a depth in per cent, and where the needle is."""
        needle_tokens, tokens = self._tokenizer.encode(needle), self._of(length)
        if len(tokens) + len(needle_tokens) > length - buffer:
            tokens = tokens[: length - buffer - len(needle_tokens)]
        point = len(tokens) if percent == 100 else int(len(tokens) * (percent / 100))
        while percent != 100 and point and tokens[point - 1] not in self._stops:
            point -= 1
        text = self._tokenizer.decode([*tokens[:point], *needle_tokens, *tokens[point:]])
        # Where a needle's text comes back from its tokens with other white space, its words are what is found.
        before = len(self._tokenizer.decode(tokens[:point]))
        said = needle if text.startswith(needle, before) else needle.strip()
        start = text.find(said, max(0, before - 1))
        return text, (start, start + len(said)) if start >= 0 else (before, before)


@dataclass(frozen=True, slots=True)
class Haystack:
    """A text, where its tokens start (characters), and behind which characters a sentence ends."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer | None) -> Haystack:
        """Tokenised once, in pieces; four characters count as a token where there is no tokenizer."""
        ends = [match.end() for match in ENDS.finditer(text)]
        if tokenizer is None:
            return cls(text, range(0, len(text), CHARACTERS_PER_TOKEN), ends)
        starts: list[int] = []
        at = 0
        while at < len(text):
            # Pieces are cut at sentence ends, where tokenizers do not join what is on both sides.
            end = at + CHUNK_CHARACTERS
            cut = ends[bisect_right(ends, end) - 1] if ends and end < len(text) and ends[0] <= end else len(text)
            cut = cut if cut > at else min(end, len(text))
            starts += [at + start for start, _ in tokenizer.offsets(text[at:cut])[1]]
            at = cut
        return cls(text, starts, ends)

    def begins(self, tokens: int) -> range:
        """The tokens from which a text of `tokens` tokens may begin: those of the second half are left for its end."""
        return range(min(tokens, max(1, len(self.starts) - tokens)))

    def cut(self, token: int) -> int:
        """The character where that token starts; the end of the text where there are fewer."""
        return self.starts[token] if token < len(self.starts) else len(self.text)

    def hide(
        self, begin: int, tokens: int, needles: Sequence[str], depth: float, *, tidy: bool
    ) -> tuple[str, list[tuple[int, int]]]:
        """About `tokens` tokens from token `begin` on, with the needles, and where each needle is.

        tidy: the text begins with a sentence and ends with a whole word, with one space around a needle. Else it is cut
        where its tokens end, and the needle goes in as it is.
        """
        start, end = self.cut(begin), self.cut(begin + tokens)
        if tidy:
            begin, start = self._sentence(begin)
            end = self.cut(begin + tokens)
            end = max(self.text.rfind(" ", start, end + 1), start) if end < len(self.text) else end
        share = (1 - depth) / len(needles)
        places = [self._place(begin, tokens, depth + i * share) for i in range(len(needles))]
        parts, spans, length, at = list[str](), list[tuple[int, int]](), 0, start
        for place, needle in zip(places, needles, strict=True):
            place = min(max(place, at), end)
            before = self.text[at:place]
            if tidy:
                before = (" " if length else "") + (before.strip() + " " if before.strip() else "")
            parts += [before, needle]
            spans.append((length + len(before), length + len(before) + len(needle)))
            length = spans[-1][1]
            at = place
        rest = self.text[at:end]
        parts.append((" " + rest.strip() if rest.strip() else "") if tidy else rest)
        return "".join(parts), spans

    def _sentence(self, token: int) -> tuple[int, int]:
        """The token and the character where the sentence begins that holds a token's start, or the text itself."""
        found = bisect_right(self.ends, self.cut(token)) - 1
        if token == 0 or found < 0:
            return 0, 0
        start = self.ends[found] + 1
        return bisect_left(self.starts, self.ends[found]), start

    def _place(self, begin: int, tokens: int, depth: float) -> int:
        """The character behind the last sentence that ends within depth (0 to 1); 1 is the very end, 0 the start."""
        if depth >= 1:
            return self.cut(begin + tokens)
        found = bisect_right(self.ends, self.cut(begin + int(tokens * depth)))
        return self.ends[found - 1] if found else 0
