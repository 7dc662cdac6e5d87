"""Facts spread over a long text: where they are, and how much text there may be. Knows stories; knows no task.

The rule is the authors': sentences of the story, in their order, at random places between sentences of another text.
Here sentences are joined by single spaces.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path

from loom_bench_babilong.stories import Story
from loom_core.api import DataError, Prompt, Tokenizer, UsageError
from loom_core.api.serving import most_units, n_tokens

SENTENCE = re.compile(r"\S.*?[.!?](?=\s|$)", re.DOTALL)


@cache
def own_sentences() -> tuple[str, ...]:
    """The sentences written for loom: no digits, none twice, no person, place or thing of a story."""
    return tuple(files(__package__).joinpath("filler.txt").read_text("utf-8").splitlines())


def sentences_of(file: Path) -> tuple[str, ...]:
    """The sentences of a text file, white space made plain. Raises DataError where there are none."""
    try:
        found = tuple(" ".join(match[0].split()) for match in SENTENCE.finditer(file.read_text("utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DataError("the text around the facts cannot be read", where=str(file), why=why) from error
    if not found:
        raise DataError("the text around the facts has no sentence", where=str(file))
    return found


class Noise:
    """The first n sentences around a story: loom's in a new order each round, a book's from a drawn place on."""

    def __init__(self, sentences: Sequence[str], draw: random.Random, *, shuffled: bool) -> None:
        self._order, self._draw, self._shuffled = list(sentences), draw, shuffled
        start = 0 if shuffled else draw.randrange(len(self._order))
        self._taken: list[str] = self._order[start:] if start else []

    def first(self, n: int) -> list[str]:
        """n sentences; from the first again where the text ends."""
        while len(self._taken) < n:
            if self._shuffled:
                self._draw.shuffle(self._order)
            self._taken += self._order
        return list(islice(self._taken, n))


@dataclass(frozen=True, slots=True)
class Mixed:
    """A context, and the characters of each fact in it."""

    context: str
    spans: tuple[tuple[int, int], ...]


def mixed(story: Story, noise: Sequence[str], places: Sequence[float]) -> Mixed:
    """The facts between the sentences, fact i before sentence int(places[i] · (n + 1)). places: rising, below 1."""
    before: dict[int, list[int]] = {}
    for i, place in enumerate(places):
        before.setdefault(int(place * (len(noise) + 1)), []).append(i)
    parts, spans, length = list[str](), dict[int, tuple[int, int]](), 0
    for at in range(len(noise) + 1):
        for i in before.get(at, ()):
            spans[i] = (length, length + len(story.facts[i]))
            parts.append(story.facts[i])
            length += len(story.facts[i]) + 1
        if at < len(noise):
            parts.append(noise[at])
            length += len(noise[at]) + 1
    return Mixed(" ".join(parts), tuple(spans[i] for i in range(len(story.facts))))


def fitted(
    story: Story,
    noise: Noise,
    draw: random.Random,
    ask: Callable[[str], Prompt],
    tokenizer: Tokenizer | None,
    length: int,
    *,
    where: str,
) -> Mixed:
    """The story in as much text as a prompt of `length` tokens, chat template included, may have; 0: the facts alone.

    ask: the prompt of a context. Four characters count as a token without tokenizer. Raises UsageError where the facts
    alone are longer.
    """
    places = sorted(draw.random() for _ in story.facts)
    if length == 0:
        return mixed(story, [], [0.0] * len(places))

    def count(n: int) -> int:
        return n_tokens(ask(mixed(story, noise.first(n), places).context), tokenizer, chat="template")

    n = most_units(count, length)
    if n < 0:
        raise UsageError(
            "a length is too short for the facts",
            where=where,
            why=f"a prompt with the facts alone has {count(0)} tokens",
            hint="ask for a greater length, or for 0: the facts alone",
        )
    return mixed(story, noise.first(n), places)
