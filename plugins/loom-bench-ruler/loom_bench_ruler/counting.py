"""loom's counting tasks: the words a list repeats most (cwe), the most frequent coded words (fwe). Knows no prompt.

Source of the rules: NVIDIA/RULER, common_words_extraction.py and freq_words_extraction.py; `list_run` is them. Orders
are drawn with numpy's RandomState, whose streams numpy keeps fixed.
"""

from __future__ import annotations

import random
import string
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate, islice
from operator import add

from loom_bench_ruler.draft import Ask, Body
from loom_bench_ruler.meter import Meter
from loom_bench_ruler.settings import Common, Frequent
from loom_bench_ruler.words import WordBook, distinct, endless

CODED_LETTERS = 6
VOCABULARY = 2000
ASKED = 3
DOTS = "..."
FEW_SHARE = 30
"""A short list repeats its common words so often that they are a third of it: once for each 30 entries."""
LEAST_WORDS = 64
"""Coded words below which the frequencies asked for are no longer apart."""
LEAST_OTHERS = 10
ORDER_BITS = 32


def shuffled(items: Sequence[str], seed: int) -> list[str]:
    """The items in a random order."""
    from numpy.random import RandomState

    return list(map(items.__getitem__, RandomState(seed).permutation(len(items)).tolist()))


def numbered(words: Sequence[str]) -> str:
    """`1. word 2. word …`."""
    return " ".join(map(add, numbers_to(1 << len(words).bit_length()), words))


@lru_cache(maxsize=2)
def numbers_to(n: int) -> tuple[str, ...]:
    """`1. ` to `n. `: every list of about one length needs the same."""
    return tuple(f"{i}. " for i in range(1, n + 1))


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the numbers of a list cost: tokens of `N.` after a space, by count of digits."""

    by_digits: tuple[float, ...]

    @classmethod
    def of(cls, meter: Meter, most_digits: int = 7) -> Numbers:
        """Measured on some numbers of each size."""
        draw = random.Random("numbers")
        rows = [[f"{draw.randrange(10**k, 10 ** (k + 1))}." for _ in range(32)] for k in range(most_digits)]
        return cls(tuple(sum(meter.pieces(row, " ")) / len(row) for row in rows))

    def first(self, n: int) -> float:
        """The cost of 1 to n."""
        total, low = 0.0, 1
        for cost in self.by_digits:
            total += cost * max(0, min(n, low * 10 - 1) - low + 1)
            low *= 10
        return total


@dataclass(frozen=True, slots=True)
class CommonDraft:
    """A list of words: the common ones, and as many others as fit, from a ring of words whose costs are summed."""

    ask: Ask
    rule: Common
    common: Sequence[str]
    ring: Sequence[str]
    sums: Sequence[float]
    numbers: Numbers
    order: int
    frame: float = 0.0

    def fit(self, room: float) -> tuple[int, float]:
        """How many other words fit, each taken `seldom` times; the common words are there already."""
        fixed = len(self.common) * self.rule.often
        base = self.numbers.first(fixed)

        def cost(n: int) -> float:
            return self.rule.seldom * self.sums[n] + self.numbers.first(fixed + n * self.rule.seldom) - base

        n = bisect_right(range(len(self.ring) + 1), room, key=cost) - 1
        return n, cost(n)

    def body(self, n: int, padding: str = "") -> Body:
        """The numbered list, shuffled. padding is not used: an entry is short."""
        words = list(self.common) * self.rule.often + list(self.ring[:n]) * self.rule.seldom
        return Body(numbered(shuffled(words, self.order)))


@dataclass(frozen=True, slots=True)
class CommonMaker:
    """Drafts of cwe at one length. words: as many as a prompt may need, with their costs after a space."""

    rule: Common
    words: Sequence[str]
    costs: Sequence[float]
    numbers: Numbers
    source: str
    least: int = LEAST_OTHERS

    def draft(self, draw: random.Random, index: int) -> CommonDraft:
        """The common words are drawn; the others follow in the order of the words from a random place on."""
        n, start = len(self.words), draw.randrange(len(self.words))
        picked = sorted(draw.sample(range(n), self.rule.words))
        chosen = set(picked)
        turn = [i for i in (*range(start, n), *range(start)) if i not in chosen]
        draw.shuffle(picked)
        common = [self.words[i] for i in picked]
        return CommonDraft(
            ask=common_ask(common, self.source),
            rule=self.rule,
            common=common,
            ring=[self.words[i] for i in turn],
            sums=list(accumulate((self.costs[i] for i in turn), initial=0.0)),
            numbers=self.numbers,
            order=draw.getrandbits(ORDER_BITS),
        )


def common_ask(common: Sequence[str], source: str) -> Ask:
    """The question for the common words."""
    return Ask(
        references=tuple(common),
        blanks={"query": "", "count": str(len(common))},
        oracle=numbered(common),
        several=True,
        meta={"words": source},
    )


def common_words(book: WordBook, meter: Meter, target: int, seed: str) -> tuple[list[str], list[float]]:
    """Words for a list of `target` tokens, in a random order, with their costs after a space."""
    some = meter.pool(list(islice(endless(book), 256)), " ")
    n = max(256, int(target / (some.mean + Numbers.of(meter).by_digits[0]) * 1.2))
    words = list(islice(endless(book), max(n, len(book.single))))
    random.Random(f"{seed} words").shuffle(words)
    return words[:n], meter.pieces(words[:n], " ")


def loom_common(settings: Common, book: WordBook, meter: Meter, target: int, seed: str) -> CommonMaker:
    """loom's variant: short lists repeat their common words less often, so that there is room for others."""
    numbers = Numbers.of(meter)
    words, costs = common_words(book, meter, target, seed)
    digits = len(str(target)) - 1
    entries = target / (sum(costs) / len(costs) + numbers.by_digits[max(0, digits - 1)])
    often = min(settings.often, max(3, int(entries / FEW_SHARE)))
    seldom = max(1, often * settings.seldom // settings.often)
    n = max(256, int(len(words) / seldom * 1.1))
    rule = Common(often=often, seldom=seldom, words=settings.words)
    return CommonMaker(rule, words[:n], costs[:n], numbers, book.source)


@cache
def zeta(alpha: float) -> float:
    """Riemann's zeta function for alpha > 1: the first terms, the rest by Euler and Maclaurin."""
    n = 1000
    head = sum(k**-alpha for k in range(1, n))
    return float(head + n ** (1 - alpha) / (alpha - 1) + n**-alpha / 2 + alpha * n ** (-alpha - 1) / 12)


def coded_word(draw: random.Random) -> str:
    """Six random letters."""
    return "".join(draw.choices(string.ascii_lowercase, k=CODED_LETTERS))


@dataclass(frozen=True, slots=True)
class FrequentDraft:
    """A text of coded words by Zipf's law; the most frequent is a row of dots. costs: of each word after a space."""

    ask: Ask
    words: Sequence[str]
    costs: Sequence[float]
    alpha: float
    order: int
    frame: float = 0.0

    def counts(self, n: int) -> list[int]:
        """How often each word stands in a text of n words: int(n · k^-alpha / zeta(alpha))."""
        scale = n / zeta(self.alpha)
        return [int(scale * k**-self.alpha) for k in range(1, len(self.words) + 1)]

    def fit(self, room: float) -> tuple[int, float]:
        """How many words fit."""

        def cost(n: int) -> float:
            return sum(count * cost for count, cost in zip(self.counts(n), self.costs, strict=True))

        high = 1
        while cost(high) <= room:
            high *= 2
        n = bisect_right(range(high), room, key=cost) - 1
        return n, cost(n)

    def body(self, n: int, padding: str = "") -> Body:
        """The text, shuffled. padding is not used: a word is short."""
        words = [word for word, count in zip(self.words, self.counts(n), strict=True) for _ in range(count)]
        return Body(" ".join(shuffled(words, self.order)))


@dataclass(frozen=True, slots=True)
class FrequentMaker:
    """Drafts of fwe at one length. n_words: how many of the vocabulary can occur at all."""

    settings: Frequent
    meter: Meter
    n_words: int
    least: int = LEAST_WORDS

    def draft(self, draw: random.Random, index: int) -> FrequentDraft:
        """A vocabulary of its own for each sample."""
        words = [DOTS, *distinct(lambda: coded_word(draw), self.n_words - 1)]
        return FrequentDraft(
            ask=Ask(
                references=tuple(words[1 : 1 + ASKED]),
                blanks={"query": "", "count": str(ASKED)},
                oracle=" ".join(words[1 : 1 + ASKED]),
                several=True,
            ),
            words=words,
            costs=self.meter.pieces(words, " "),
            alpha=self.settings.alpha,
            order=draw.getrandbits(ORDER_BITS),
        )


def frequent(settings: Frequent, meter: Meter, target: int) -> FrequentMaker:
    """The words are made up. A text has less words than tokens, so rarer words than that never occur."""
    most = target if meter.tokenizer is not None else target * 4
    n_words = int(most ** (1 / settings.alpha)) + 1
    return FrequentMaker(settings, meter, min(VOCABULARY, max(ASKED + 2, n_words)))
