"""Where the filler comes from: loom's own sentences, or the pinned essays. Knows words; knows no key and no model."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from itertools import islice

WORD = re.compile(r"\S+\s*")
"""One word with the white space behind it, as the paper's repository splits its background text."""


@cache
def sentences() -> tuple[str, ...]:
    """The sentences written for loom: no digits, none twice."""
    return tuple(files(__package__).joinpath("filler.txt").read_text("utf-8").splitlines())


def own_words(draw: random.Random) -> Iterator[str]:
    """Endless words of loom's sentences, shuffled again each time all have been used."""
    order = list(sentences())
    while True:
        draw.shuffle(order)
        for sentence in order:
            yield from WORD.findall(sentence + " ")


class Words:
    """The first n words of a text that has no end: taken from an iterator as they are needed, and kept."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source, self._taken = source, list[str]()

    def first(self, n: int) -> list[str]:
        """The first n words."""
        self._taken.extend(islice(self._source, max(0, n - len(self._taken))))
        return self._taken[:n]


class Essays:
    """The first n words of essays that follow each other, from the first again after the last (make_background).

    As many essays are joined, nothing between, as have n words counted one by one; the last word of an essay and the
    first of the next are one word where no white space parts them, so that a text may have a few words less than n.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        # Upstream opens the files in text mode.
        self._texts = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
        self._counts = [len(WORD.findall(text)) for text in self._texts]
        self._held: tuple[int, list[str]] = (0, [])

    def first(self, n: int) -> list[str]:
        """The first n words. Raises ValueError where no essay has one."""
        if not sum(self._counts):
            raise ValueError("no essay has a word")
        essays, words = 1, self._counts[0]
        while words < n:
            words += self._counts[essays % len(self._counts)]
            essays += 1
        if self._held[0] != essays:
            text = "".join(self._texts[i % len(self._texts)] for i in range(essays))
            self._held = essays, WORD.findall(text)
        return self._held[1][:n]
