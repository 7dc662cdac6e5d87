"""Where the filler comes from: loom's own sentences, or the pinned essays. Knows words; knows no key and no model."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import cycle, islice

WORD = re.compile(r"\S+\s*")
"""One word with the white space behind it, as the paper's repository splits its background text."""


@cache
def sentences() -> tuple[str, ...]:
    """The sentences written for loom: no digits, none twice."""
    return tuple(files(__package__).joinpath("filler.txt").read_text("utf-8").splitlines())


def own_words(draw: random.Random) -> Iterator[str]:
    """Endless words of loom's sentences, shuffled anew each time all have been used."""
    order = list(sentences())
    while True:
        draw.shuffle(order)
        for sentence in order:
            yield from WORD.findall(sentence + " ")


def essay_words(texts: Iterable[str]) -> tuple[str, ...]:
    """All words of the essays, in the order given, the texts joined as they are."""
    return tuple(WORD.findall("".join(texts)))


class Words:
    """The first n words of a text that has no end: taken from an iterator as they are needed, and kept."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source, self._taken = source, list[str]()

    @classmethod
    def repeating(cls, words: Sequence[str]) -> Words:
        """The same words again and again, in order."""
        return cls(cycle(words))

    def first(self, n: int) -> list[str]:
        """The first n words."""
        self._taken.extend(islice(self._source, max(0, n - len(self._taken))))
        return self._taken[:n]
