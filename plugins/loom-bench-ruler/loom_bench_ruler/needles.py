"""loom's needle tasks: keys with values hidden in noise, prose or other needles. Knows tokens through a pool's costs.

Source of the rules: NVIDIA/RULER, scripts/data/synthetic/niah.py; `needle_run` is it. Needles stand at sentence
borders of prose, at depths drawn from 40 evenly spaced percentages; in noise and among other needles between lines.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loom_bench_ruler.draft import Ask, Body, insert
from loom_bench_ruler.meter import Meter, Pool, Strand
from loom_bench_ruler.settings import Needles
from loom_bench_ruler.words import WordBook, distinct, noise, prose

DEPTHS = tuple(round(i * 100 / 39) for i in range(40))
"""The authors' 40 depths in per cent."""
PROSE_SENTENCES = 2048
POOL_SHARE = 1.25
"""Other needles in the pool, for each that fits a prompt."""
DIGITS = 7
UUID_BITS = 128


def a_number(draw: random.Random) -> str:
    """Seven digits, the first not zero."""
    return str(draw.randrange(10 ** (DIGITS - 1), 10**DIGITS))


def a_uuid(draw: random.Random) -> str:
    """A random UUID, version 4."""
    return str(uuid.UUID(int=draw.getrandbits(UUID_BITS), version=4))


def maker_of(kind: str, book: WordBook) -> Callable[[random.Random], str]:
    """What draws a key or value of that kind: words, numbers or uuids."""
    return {"words": book.key, "numbers": a_number, "uuids": a_uuid}[kind]


@dataclass(frozen=True, slots=True)
class Hay:
    """What needles are hidden in. again: the strand's order is drawn for each sample. joint: between the pieces.
    keys and values: those of needles in the pool, which no question may ask for."""

    pool: Pool
    joint: str
    again: bool
    taken: frozenset[str] = frozenset()


def loom_hay(settings: Needles, sentence: str, book: WordBook, meter: Meter, target: int, seed: str) -> Hay:
    """loom's own haystacks: its noise, its prose, or needles of its own wording."""
    draw = random.Random(f"{seed} haystack")
    if settings.haystack == "noise":
        return Hay(meter.pool([noise()], "\n"), "\n", again=False)
    if settings.haystack == "essay":
        return Hay(meter.pool(prose(PROSE_SENTENCES), " "), " ", again=True)
    key, value = maker_of(settings.keys, book), maker_of(settings.values, book)
    some = meter.pool([sentence.format(key=key(draw), value=value(draw)) for _ in range(64)], "\n")
    n = int(POOL_SHARE * target / some.mean) + 16
    keys, values = distinct(lambda: key(draw), n), distinct(lambda: value(draw), n)
    pieces = [sentence.format(key=k, value=v) for k, v in zip(keys, values, strict=True)]
    return Hay(meter.pool(pieces, "\n"), "\n", again=True, taken=frozenset((*keys, *values)))


@dataclass(frozen=True, slots=True)
class NeedleDraft:
    """A sample's needles, its haystack and where they go. depths: one for each needle, 0 to 100."""

    ask: Ask
    strand: Strand
    joint: str
    needles: Sequence[str]
    depths: Sequence[float]
    asked: Sequence[int]
    frame: float = 1.0

    def fit(self, room: float) -> tuple[int, float]:
        """As the strand says."""
        return self.strand.fit(room)

    def body(self, n: int, padding: str = "") -> Body:
        """Every needle before piece int(n · depth)."""
        pieces = self.strand.take(n) + ([padding] if padding else [])
        places = [(int(n * depth / 100), needle) for depth, needle in zip(self.depths, self.needles, strict=True)]
        body = insert(pieces, places, self.joint)
        return Body(body.context, tuple(body.spans[i] for i in self.asked))


@dataclass(frozen=True, slots=True)
class NeedleMaker:
    """Drafts of a needle task at one length. shift: where single needles' depths begin, so that lengths differ."""

    settings: Needles
    sentence: str
    book: WordBook
    hay: Hay
    shift: float
    least: int = 0

    def draft(self, draw: random.Random, index: int) -> NeedleDraft:
        """Keys and values that no other needle has; one needle asked for has depths that are even over samples."""
        drawn = draw_needles(self.settings, self.book, self.hay.taken, draw)
        depths: list[float] = [float(depth) for depth in draw.sample(DEPTHS, len(drawn.texts(self.sentence)))]
        depth = None
        if len(drawn.asked) == 1:
            depths[drawn.asked[0]] = DEPTHS[int(len(DEPTHS) * ((halves(index) + self.shift) % 1))]
            depth = depths[drawn.asked[0]] / 100
        return NeedleDraft(
            ask=drawn.ask(self.settings, self.book, depth),
            strand=Strand(self.hay.pool, random.Random(draw.random()) if self.hay.again else None),
            joint=self.hay.joint,
            needles=drawn.texts(self.sentence),
            depths=depths,
            asked=drawn.asked,
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """Keys and values of one sample. pairs: every needle; asked: the needles that the question asks for, in order."""

    pairs: tuple[tuple[str, str], ...]
    asked: tuple[int, ...]

    def texts(self, sentence: str) -> list[str]:
        """The needles as sentences."""
        return [sentence.format(key=key, value=value) for key, value in self.pairs]

    def ask(self, settings: Needles, book: WordBook, depth: float | None) -> Ask:
        """The question."""
        queries = list(dict.fromkeys(self.pairs[i][0] for i in self.asked))
        values = tuple(self.pairs[i][1] for i in self.asked)
        several = settings.n_queries * settings.n_values > 1
        query = queries[0] if len(queries) == 1 else f"{', '.join(queries[:-1])}, and {queries[-1]}"
        return Ask(
            references=values,
            blanks={
                "query": query,
                "type_needle_v": settings.values if several else settings.values[:-1],
                "count": str(len(values)),
            },
            oracle=", ".join(values),
            several=several,
            depth=depth,
            meta={"keys": queries} | ({"words": book.source} if settings.keys == "words" else {}),
        )


def draw_needles(settings: Needles, book: WordBook, taken: frozenset[str], draw: random.Random) -> Drawn:
    """Different keys, different values, none of them in the haystack; the order of the needles is random."""
    key, value = maker_of(settings.keys, book), maker_of(settings.values, book)
    keys = distinct(lambda: _free(key, draw, taken), settings.n_keys)
    values = distinct(lambda: _free(value, draw, taken), settings.n_keys * settings.n_values)
    pairs = [(keys[i // settings.n_values], value) for i, value in enumerate(values)]
    queries = draw.sample(keys, settings.n_queries)
    draw.shuffle(pairs)
    asked = tuple(i for query in queries for i, pair in enumerate(pairs) if pair[0] == query)
    return Drawn(tuple(pairs), asked)


def _free(make: Callable[[random.Random], str], draw: random.Random, taken: frozenset[str]) -> str:
    while (text := make(draw)) in taken:
        pass
    return text


def halves(i: int) -> float:
    """The binary digits of i behind the point, in reverse: 0, 1/2, 1/4, 3/4, … Any first n lie evenly in [0, 1)."""
    return int(f"{i:b}"[::-1], 2) / float(1 << max(1, i.bit_length()))
