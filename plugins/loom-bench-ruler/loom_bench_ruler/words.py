"""Words and sentences: loom's own (words.toml), and the wonderwords lists of the official variant. Knows no task."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from itertools import product

from loom_core.api import Unavailable

_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")


@cache
def own(name: str) -> tuple[str, ...]:
    """One list of words.toml: separated by bars where it has any, else by white space."""
    table: Mapping[str, str] = tomllib.loads(files(__package__).joinpath("words.toml").read_text("utf-8"))
    text = " ".join(table[name].split())
    return tuple(part.strip() for part in text.split("|")) if "|" in text else tuple(text.split())


def noise() -> str:
    """loom's noise: a few plain sentences that say nothing."""
    return " ".join(own("noise"))


def sentence(draw: random.Random) -> str:
    """One sentence of plain prose, without digits."""
    text = draw.choice(own("sentences"))
    for blank, name in (("{a}", "adjectives"), ("{n}", "nouns"), ("{p}", "places"), ("{t}", "times")):
        while blank in text:
            text = text.replace(blank, draw.choice(own(name)), 1)
    for blank, name in (("{P}", "places"), ("{T}", "times")):
        word = draw.choice(own(name))
        text = text.replace(blank, word[0].upper() + word[1:])
    return _ARTICLE.sub(r"\1n ", text)


def article(word: str) -> str:
    """The word with "a" or "an" before it."""
    return _ARTICLE.sub(r"\1n ", f"a {word}")


@cache
def prose(n: int) -> tuple[str, ...]:
    """n different sentences."""
    draw = random.Random("prose")
    return tuple(distinct(lambda: sentence(draw), n))


def distinct(make: Callable[[], str], n: int) -> list[str]:
    """n different results of `make`, in the order they came."""
    found: dict[str, None] = {}
    while len(found) < n:
        found[make()] = None
    return list(found)


@dataclass(frozen=True, slots=True)
class WordBook:
    """Where keys and counted words come from. source: named in every sample that used it."""

    adjectives: Sequence[str]
    nouns: Sequence[str]
    single: Sequence[str]
    source: str

    def key(self, draw: random.Random) -> str:
        """An adjective and a noun with a hyphen between."""
        return f"{draw.choice(self.adjectives)}-{draw.choice(self.nouns)}"


@cache
def own_book() -> WordBook:
    """loom's words; counted words are two nouns written as one."""
    joined = {a + b: None for a, b in product(own("nouns"), repeat=2) if a != b}
    return WordBook(own("adjectives"), own("nouns"), tuple(joined), "loom")


@cache
def wonderwords_book() -> WordBook:
    """The lists of the wonderwords package, which the authors' generator uses. Raises Unavailable where it is missing.

    Counted words are all nouns, adjectives and verbs, sorted. The lists differ between releases, so the release is
    named.
    """
    try:
        release = version("wonderwords")
        folder = files("wonderwords").joinpath("assets")
    except (PackageNotFoundError, ModuleNotFoundError) as error:
        raise Unavailable(
            "the word lists of the package wonderwords are not installed",
            where="ruler, variant=official",
            hint='pip install "loom-bench-ruler[official]"',
        ) from error
    lists = {
        name: [line.rstrip() for line in folder.joinpath(f"{name}list.txt").read_text("utf-8").splitlines()]
        for name in ("adjective", "noun", "verb")
    }
    every = sorted({word for words in lists.values() for word in words})
    return WordBook(lists["adjective"], lists["noun"], every, f"wonderwords {release}")


def endless(book: WordBook) -> Iterator[str]:
    """The counted words in order, then pairs of them: enough for any length."""
    yield from book.single
    for a, b in product(book.single, repeat=2):
        yield a + b
