"""How the authors' generators find a length: one search for each run, then lower and draw again. Knows no task.

A run is one task at one length with one seed. Its random streams go on from the search through all samples, so a sample
can only be made after those before it. Source: NVIDIA/RULER, scripts/data/synthetic/{niah,variable_tracking,
common_words_extraction,qa}.py, all of which have this search and this loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random
from typing import Protocol

from loom_bench_ruler.draft import Spans
from loom_core.api import Json, Prompt, UsageError

Count = Callable[[str], int]
"""Tokens of a text, no special ones added."""
MOST_TRIES = 500
"""How often a prompt of the fewest units is drawn again before a length counts as too short. The authors never stop."""


class RedrawError(Exception):
    """What was drawn cannot be used; the authors' program raises here too, and its loop draws again with less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A prompt as a generator made it. context: the segment that the spans lie in. units: its filler."""

    prompt: Prompt
    references: tuple[str, ...]
    units: int
    context: int = 1
    spans: Spans = ()
    oracle: str = ""
    meta: Mapping[str, Json] = field(default_factory=dict)


class Generator(Protocol):
    """One task's generator. Every call of `make` goes on in its random streams."""

    def make(self, n: int, index: int) -> Made:
        """A prompt with n units of filler. index: of the sample, 0 in the search. Raises RedrawError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A run's numbers. room: most tokens of prompt and answer together. step: units taken off a prompt that is too
    long, and the fewest that are tried. first: units of the prompt that the upper bound is estimated from. spread: from
    the estimate (room, tokens for each unit) to the upper bound. extra: tokens the search adds to each prompt's. where:
    task and length, for messages. most: an upper bound."""

    room: int
    step: int
    first: int
    extra: int
    where: str
    spread: Callable[[int, float], int] = lambda room, each: int((room / each) * 3)
    most: int | None = None

    def at_most(self, units: int) -> Search:
        """The same search with an upper bound of its own, which the authors' has not."""
        return replace(self, most=units)

    def units(self, generator: Generator, count: Count) -> int:
        """The most units that fit, as the authors search them: halving between `step` and the upper bound."""
        each = count(self._drawn(generator, self.first).prompt.text) / self.first
        if not each:
            raise UsageError(
                "this tokenizer cannot fill a prompt",
                where=f"ruler:{self.where}",
                why="a prompt has no tokens",
                hint="check the model's tokenizer",
            )
        low, high = self.step, max(self.spread(self.room, each), self.step * 2)
        high = high if self.most is None else min(high, self.most)
        best = None
        while low <= high:
            middle = (low + high) // 2
            if count(self._drawn(generator, middle).prompt.text) + self.extra <= self.room:
                best, low = middle, middle + 1
            else:
                high = middle - 1
        return self.step if best is None else best

    def _drawn(self, generator: Generator, n: int) -> Made:
        """A prompt of the search. The authors' program ends where one cannot be used; here it is drawn again."""
        for _ in range(MOST_TRIES):
            try:
                return generator.make(n, 0)
            except RedrawError:
                continue
        raise self.too_short(None)

    def too_short(self, length: int | None) -> UsageError:
        """For a length at which no prompt of the fewest units fits."""
        return UsageError(
            "a length is too short for the task",
            where=f"ruler:{self.where}",
            why=f"prompt and answer need {length} tokens at the least" if length else "no prompt can be drawn",
            hint=f"ask for at least {length} tokens" if length else "ask for more tokens",
        )


def samples(
    generator: Generator,
    n: int,
    search: Search,
    count: Count,
    max_tokens: int,
    finish: Callable[[Made], Made] = lambda made: made,
) -> Iterator[Made]:
    """The run's samples, without an end; n: the units that were found. finish: what a sample gets that the search's
    prompts have not (an example). Raises UsageError where a length is too short.
    """
    index = 0
    while True:
        yield _sample(generator, search, count, max_tokens, finish, n, index)
        index += 1


def _sample(
    generator: Generator,
    search: Search,
    count: Count,
    max_tokens: int,
    finish: Callable[[Made], Made],
    n: int,
    index: int,
) -> Made:
    least: int | None = None
    tries = 0
    while tries < MOST_TRIES:
        try:
            made = finish(generator.make(n, index))
            length = count(made.prompt.text) + max_tokens
            if length <= search.room:
                return made
            least = min(least or length, length)
        except RedrawError:
            pass
        if n > search.step:
            n -= search.step
        else:
            tries += 1
    raise search.too_short(least)


@lru_cache(maxsize=16)
def order(seed: int, n: int) -> tuple[int, ...]:
    """The order into which `random.Random(seed).shuffle` brings n items: the authors restart it for every prompt."""
    places = list(range(n))
    Random(seed).shuffle(places)
    return tuple(places)
