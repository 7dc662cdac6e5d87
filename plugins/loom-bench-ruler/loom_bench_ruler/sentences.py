"""Where the sentences of a haystack begin. Knows words and the pinned essays' exceptions; draws nothing.

The authors split with NLTK's `sent_tokenize` and join the sentences with spaces. Two plain rules stand in for it: a
sentence ends at a space, after a full stop and before a capital or digit; or inside a word, between a full stop and a
bracket, quote or star, where the essays lack a space ("good.[2] Technology"). What NLTK (3.10, punkt_tab, English)
does otherwise in the 49 pinned essays is listed by place: abbreviations, initials, citations. So the sentences of those
essays are NLTK's, without its trained tables and in a hundredth of its time.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

ENDS = re.compile(r"[.!?][\"')\]]*$")
BEGINS = re.compile(r"[\"'(\[]*[A-Z0-9]")
INSIDE = re.compile(r"[.!?](?=[\[(\"'*{@:;)}\]!?])")
CLOSERS = re.compile(r"[\"')\]}]+")
PINNED = "14ca63813ed994265c91e1d53f181afb6e3bca26193131c86f6ea78f5e52da86"
"""sha256 of the 49 pinned essays, in the order of their names, every run of white space one space."""
# fmt: off
NOT_BEFORE = frozenset((
    5723, 18666, 20827, 27592, 29006, 29121, 29122, 29138, 34266, 37957, 38720, 43241, 44684, 65828, 67779, 77849,
    77859, 99153, 103173,
))
"""Words of the pinned essays before which the rule ends a sentence and NLTK does not."""
ALSO_BEFORE = frozenset((
    7887, 12270, 18894, 22735, 23291, 25466, 28984, 29020, 29040, 29096, 29139, 29352, 29617, 30911, 40646, 41685,
    41705, 46773, 48788, 55628, 58603, 58962, 65899, 69817, 78924, 78931, 83042, 92821, 101022, 104143, 104838, 107191,
    111282,
))
"""Words of the pinned essays before which NLTK ends a sentence and the rule does not."""
NOT_INSIDE = frozenset(((10426, 8), (21788, 8), (23372, 5), (41827, 5), (43641, 10), (48788, 4)))
"""Places (word, character) inside words of the pinned essays where the rule ends a sentence and NLTK does not."""
# fmt: on


@dataclass(frozen=True, slots=True)
class Haystack:
    """Essays as pieces between which spaces go, and the pieces that begin a sentence; the essays repeat as needed.

    ends: for each word, how many pieces it and those before it have. starts: indices of pieces, ascending.
    """

    pieces: Sequence[str]
    ends: Sequence[int]
    starts: Sequence[int]
    known: bool = True
    _grown: dict[int, list[str]] = field(default_factory=dict, repr=False)

    def n_pieces(self, n: int) -> int:
        """The pieces of the first n words."""
        cycles, rest = divmod(n, len(self.ends))
        return cycles * len(self.pieces) + (self.ends[rest - 1] if rest else 0)

    def take(self, n: int) -> list[str]:
        """The pieces of the first n words."""
        wanted = self.n_pieces(n)
        if len(grown := self._grown.setdefault(0, [])) < wanted:
            grown.extend(list(self.pieces) * -(-(wanted - len(grown)) // len(self.pieces)))
        return grown[:wanted]

    def n_sentences(self, n: int) -> int:
        """How many sentences the first n words have."""
        cycles, rest = divmod(self.n_pieces(n), len(self.pieces))
        return cycles * len(self.starts) + bisect_left(self.starts, rest)

    def start(self, sentence: int, n: int) -> int:
        """The piece that a sentence of the first n words begins with; that of one more sentence is the end."""
        if sentence >= self.n_sentences(n):
            return self.n_pieces(n)
        cycles, rest = divmod(sentence, len(self.starts))
        return cycles * len(self.pieces) + self.starts[rest]


def haystack(text: str) -> Haystack:
    """The words of the essays' text, cut into sentences."""
    words = re.sub(r"\s+", " ", text).split(" ")
    known = hashlib.sha256(" ".join(words).encode("utf-8", "surrogatepass")).hexdigest() == PINNED
    pieces: list[str] = []
    ends: list[int] = []
    starts: list[int] = []
    for i, word in enumerate(words):
        if i == 0 or _before(words, i, known):
            starts.append(len(pieces))
        at = 0
        for match in INSIDE.finditer(word):
            place = match.end()
            if CLOSERS.fullmatch(word, place) or (known and (i, place) in NOT_INSIDE):
                continue
            pieces.append(word[at:place])
            starts.append(len(pieces))
            at = place
        pieces.append(word[at:])
        ends.append(len(pieces))
    return Haystack(pieces, ends, starts, known)


def _before(words: Sequence[str], i: int, known: bool) -> bool:
    if known and i in NOT_BEFORE:
        return False
    return bool(ENDS.search(words[i - 1]) and BEGINS.match(words[i])) or (known and i in ALSO_BEFORE)
