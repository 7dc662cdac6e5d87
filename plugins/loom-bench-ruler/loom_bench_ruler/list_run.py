"""The authors' two word-count generators, draw by draw: common words (cwe) and frequent coded words (fwe).

Source: NVIDIA/RULER, scripts/data/synthetic/{common_words_extraction,freq_words_extraction}.py.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from random import Random

from loom_bench_ruler.counting import DOTS, numbered, zeta
from loom_bench_ruler.runs import Count, Made, RedrawError, Search, order
from loom_bench_ruler.settings import Common, Frequent, Wording
from loom_core.api import Prompt, Segment, UsageError, segment

SHORT = 4096
"""Below this length lists repeat their words less often."""
STEP = 10
FIRST = 4096
COMMON_SHORT = (6, 1)
EXAMPLE = {True: (20, 3, 1), False: (40, 10, 3)}
"""The example list of cwe, short or not: words, how often the common ones and the others stand."""
CODED_LETTERS = 6
TOKENS_A_WORD = 50
"""A coded text of n tokens draws from n // 50 different words."""
STEPS = 32
ASKED = 3


def common_search(room: int, max_tokens: int, where: str) -> Search:
    """Different words, in steps of ten."""
    return Search(
        room=room,
        step=STEP,
        first=FIRST,
        extra=max_tokens,
        where=where,
        spread=lambda room, each: int(room // each) * 2,
    )


@dataclass(frozen=True, slots=True)
class CommonRun:
    """One run of cwe. words: the pool, in the run's order. more: the words for lists of more than the pool has, asked
    for when one is drawn; raises Unavailable where they are not at hand. long_lists: where those come from."""

    settings: Common
    wording: Wording
    seed: int
    stream: Random
    short: bool
    words: Sequence[str]
    more: Callable[[], Sequence[str]]
    source: str
    long_lists: str

    def make(self, n: int, index: int) -> Made:
        """An example list, then a list of n different words; the example's answer is a turn of the assistant."""
        rule = self.settings
        example, answer = self._list(*EXAMPLE[self.short])
        often, seldom = COMMON_SHORT if self.short else (rule.often, rule.seldom)
        context, common = self._list(n, often, seldom)
        blanks = {"query": "", "num_cw": str(rule.words)}
        before, after, prefix = (
            text.format(**blanks) for text in (self.wording.before, self.wording.after, self.wording.prefix)
        )
        return Made(
            prompt=Prompt(
                segments=(
                    segment("instruction", before + example + after),
                    Segment(kind="instruction", text=f"{prefix} {numbered(answer)}\n", role="assistant"),
                    segment("instruction", before),
                    segment("context", context),
                    segment("question", after),
                    segment("prefill", prefix),
                )
            ),
            references=tuple(common),
            units=n,
            context=3,
            oracle=numbered(common),
            meta={"words": self.source} | ({} if self.long_lists == "file" else {"long_lists": self.long_lists}),
        )

    def _list(self, n: int, often: int, seldom: int) -> tuple[str, list[str]]:
        pool = self.words if n <= len(self.words) else self.more()
        if not 0 <= n <= len(pool):
            raise RedrawError
        drawn = self.stream.sample(pool, n)
        common = drawn[: self.settings.words]
        entries = common * often + drawn[self.settings.words :] * seldom
        return numbered([entries[i] for i in order(self.seed, len(entries))]), common


@dataclass(frozen=True, slots=True)
class FrequentRun:
    """One run of fwe. room: most tokens of prompt and answer together; every word is drawn from `stream`."""

    settings: Frequent
    wording: Wording
    seed: int
    stream: Random
    room: int
    max_tokens: int
    where: str

    def samples(self, count: Count) -> Iterator[Made]:
        """The run's samples, without an end. Raises UsageError where a length is too short."""
        most = self.room - self.max_tokens
        step = most // STEPS
        if step < 1 or count(self._made(0, self._vocabulary(0)).prompt.text) > most:
            raise self._too_short()
        vocabulary = self._vocabulary(most // TOKENS_A_WORD)
        n = most // CODED_LETTERS
        while count(self._made(n, vocabulary).prompt.text) < most:
            n += step
        n -= step
        while True:
            vocabulary = self._vocabulary(most // TOKENS_A_WORD)
            used = n
            while count((made := self._made(used, vocabulary)).prompt.text) > most:
                used -= step
            if len(made.references) < ASKED or not made.prompt.context:
                raise self._too_short()
            yield made

    def _too_short(self) -> UsageError:
        return UsageError(
            "a length is too short for the task",
            where=f"ruler:{self.where}",
            why="the text has no room for words that differ in their counts",
            hint="ask for more tokens",
        )

    def _vocabulary(self, n: int) -> list[str]:
        """n different words in the run's order, the first of them dots."""
        words = [self._word() for _ in range(n)]
        while len(set(words)) < n:
            words.append(self._word())
        held = sorted(set(words))
        return [DOTS, *(held[i] for i in order(self.seed, len(held))[1:])]

    def _word(self) -> str:
        return "".join(self.stream.choices(string.ascii_lowercase, k=CODED_LETTERS))

    def _made(self, n: int, vocabulary: Sequence[str]) -> Made:
        """A text of about n words: the k-th stands int(n · k^-alpha / zeta(alpha)) times."""
        import numpy

        alpha = self.settings.alpha
        ranks = numpy.arange(1, len(vocabulary) + 1)
        counts = (n * (ranks**-alpha) / zeta(alpha)).astype(int).tolist()
        words = list(chain.from_iterable(map(repeat, vocabulary, counts)))
        context = " ".join(words[i] for i in order(self.seed, len(words)))
        answers = tuple(vocabulary[1 : 1 + ASKED])
        before, after, prefix = (
            text.format(query="") for text in (self.wording.before, self.wording.after, self.wording.prefix)
        )
        return Made(
            prompt=Prompt(
                segments=(
                    segment("instruction", before),
                    segment("context", context),
                    segment("question", after),
                    segment("prefill", prefix),
                )
            ),
            references=answers,
            units=n,
            oracle=" ".join(answers),
        )
