"""loom's own form of the test: filler, wording and counts written or drawn here. Knows texts; knows no file upstream.

The rule is the paper's (arXiv 2403.11802): counts stand alone on lines at equal steps of the text, in no order; with
reasoning each line holds a mistaken count and then the right one. The wording is loom's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice

from loom_core.api import Prompt, Tokenizer, UsageError, segment
from loom_core.api.serving import most_units, n_tokens

MOST_COUNT = 199


@dataclass(frozen=True, slots=True)
class Wording:
    """One language. key: the name of the list in the answer. right, both: a line with the right count, or with a
    mistaken and the right one. question: `{key}` and `{what}` are filled."""

    key: str
    joint: str
    right: str
    both: str
    question: str
    what: tuple[str, str]


WORDINGS = {
    "en": Wording(
        key="night_owl",
        joint=" ",
        right="The night owl noted {right} ★ here.",
        both="The night owl first noted {wrong} ★ here, saw the mistake, and corrected it to {right} ★.",
        question=(
            "\n\nThe text above holds lines in which the night owl notes a number of ★. Collect {what}, in any "
            'order. Answer with JSON of this form and nothing else: {{"{key}": [1, 2, 3]}}'
        ),
        what=("every number that it notes", "the corrected number of each line, not the mistaken one"),
    ),
    "zh": Wording(
        key="猫头鹰",
        joint="",
        right="猫头鹰在这里记下了{right}颗★。",
        both="猫头鹰在这里先记成了{wrong}颗★，发现有误，改正为{right}颗★。",
        question=(
            "\n\n上文中有若干行写着猫头鹰记下的★的数目。请收集{what}，次序不限。"
            '只用如下格式的JSON作答，不要写别的内容：{{"{key}": [1, 2, 3]}}'
        ),
        what=("它记下的每一个数目", "每一行改正后的数目，而不是有误的数目"),
    ),
}


@dataclass(frozen=True, slots=True)
class Counts:
    """The right counts of a text in the order of its lines, and the mistaken ones beside them."""

    right: tuple[int, ...]
    wrong: tuple[int, ...]

    @classmethod
    def drawn(cls, draw: random.Random, n: int) -> Counts:
        """n pairs of neighbouring numbers, all numbers different."""
        pairs = [
            (low, low + 1) if draw.random() < 0.5 else (low + 1, low) for low in draw.sample(range(2, MOST_COUNT, 2), n)
        ]
        return cls(tuple(right for right, _ in pairs), tuple(wrong for _, wrong in pairs))


@cache
def sentences(language: str) -> tuple[str, ...]:
    """The sentences written for loom: no digits, none twice."""
    return tuple(files(__package__).joinpath(f"filler_{language}.txt").read_text("utf-8").splitlines())


def prompt_of(wording: Wording, text: Sequence[str], counts: Counts, reasoning: bool) -> Prompt:
    """The prompt with the count lines at equal steps of the sentences, the last one at the end."""
    form, parts, done = wording.both if reasoning else wording.right, list[str](), 0
    for i, (right, wrong) in enumerate(zip(counts.right, counts.wrong, strict=True), 1):
        upto = len(text) * i // len(counts.right)
        parts += [wording.joint.join(text[done:upto]), "\n", form.format(right=right, wrong=wrong), "\n"]
        done = upto
    question = wording.question.format(key=wording.key, what=wording.what[reasoning])
    return Prompt(segments=(segment("context", "".join(parts)), segment("question", question)))


class Filler:
    """The first n sentences of a text without end, in another order each time all have been used."""

    def __init__(self, language: str, draw: random.Random) -> None:
        self._order, self._draw = list(sentences(language)), draw
        self._taken: list[str] = []

    def first(self, n: int) -> list[str]:
        """n sentences."""
        while len(self._taken) < n:
            self._draw.shuffle(self._order)
            self._taken += self._order
        return list(islice(self._taken, n))


def fitted(
    wording: Wording, filler: Filler, counts: Counts, reasoning: bool, tokenizer: Tokenizer | None, length: int
) -> Prompt:
    """The longest prompt of at most `length` tokens, chat template included; four characters a token without tokenizer.

    Raises UsageError where the counts alone are longer.
    """

    def made(n: int) -> Prompt:
        return prompt_of(wording, filler.first(n), counts, reasoning)

    def count(n: int) -> int:
        return n_tokens(made(n), tokenizer, chat="template")

    n = most_units(count, length)
    if n < len(counts.right):
        needed = count(len(counts.right))
        raise UsageError(
            "a length is too short for the counts",
            where=f"counting-stars, length {length}",
            why=f"{len(counts.right)} counts with a sentence before each have {needed} tokens",
            hint=f"ask for at least {needed} tokens, or fewer stars (counting-stars@variant=loom,stars=8)",
        )
    return made(n)
