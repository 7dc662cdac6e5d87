"""The authors' generator of variable tracking, draw by draw; its layout is the pinned commit's, or the paper's.

Source: NVIDIA/RULER, scripts/data/synthetic/variable_tracking.py, at the pinned commit, and at c5341b4 (2024-12-04):
the last one before "fix VT" (26ed7ba, 2025-05-13), whose layout the paper and lm-evaluation-harness have.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Literal

from loom_bench_ruler.runs import Count, Made, RedrawError, Search, samples
from loom_bench_ruler.settings import Chains, Wording
from loom_core.api import Prompt, segment

if TYPE_CHECKING:
    from numpy.random import RandomState

Layout = Literal["pinned", "paper"]
STEP, SHORT_STEP, EXAMPLE_STEP = 10, 5, 5
SHORT = 4096
EXAMPLE_TOKENS = 500
EXAMPLE_VALUE = "12345"
LETTERS, EXAMPLE_LETTERS, EXAMPLE_HOPS = 5, 3, 10
LOWEST, BELOW = 10000, 99999
"""Values of five digits."""


@dataclass(slots=True)
class ChainRun:
    """One run of variable tracking. values: numpy's stream, which the values come from; everything else comes from
    `stream`. example: whether prompts are the example that stands in front of all others."""

    settings: Chains
    wording: Wording
    stream: Random
    values: RandomState
    noise: str
    layout: Layout = "pinned"
    example: bool = False

    def make(self, n: int, index: int) -> Made:
        """A prompt with n lines of noise. Raises RedrawError where two names are equal or there are too few lines."""
        hops = min(EXAMPLE_HOPS, self.settings.hops) if self.example else self.settings.hops
        names, chains = self._chains(hops)
        line = self.noise if self.layout == "pinned" else f"{self.noise}\n"
        lines = [line] * n
        if self.layout == "paper" and n <= hops + 1:
            lines = [f"{part}." if part.strip() else part for line in lines for part in line.split(".")]
        marks = [False] * len(lines)
        for number, chain in enumerate(chains):
            if len(lines) < len(chain):
                raise RedrawError
            for j, place in enumerate(sorted(self.stream.sample(range(len(lines)), len(chain)))):
                lines.insert(place + j, chain[j])
                marks.insert(place + j, number == 0)
        context, spans = self._context(lines, marks)
        value = chains[0][0].split("=")[-1].strip()
        blanks = {"query": value, "num_v": str(self.settings.hops + 1)}
        return Made(
            prompt=Prompt(
                segments=(
                    segment("instruction", self.wording.before.format(**blanks)),
                    segment("context", context),
                    segment("question", self.wording.after.format(**blanks)),
                    segment("prefill", self.wording.prefix.format(**blanks)),
                )
            ),
            references=tuple(names),
            units=n,
            spans=tuple(spans),
            oracle=" ".join(names),
        )

    def _chains(self, hops: int) -> tuple[list[str], list[list[str]]]:
        """The first chain's names, and every chain's assignments."""
        letters, wanted = EXAMPLE_LETTERS if self.example else LETTERS, self.settings.chains * (hops + 1)
        names = [self._name(letters) for _ in range(wanted)]
        while len(set(names)) < wanted:
            names.append(self._name(letters))
        chains = []
        for i in range(0, len(names), hops + 1):
            own = names[i : i + hops + 1]
            drawn = self.layout == "paper" or not self.example
            value = self._value() if drawn else EXAMPLE_VALUE
            if len(own) <= hops:
                raise RedrawError
            chains.append([f"VAR {own[0]} = {value}", *(f"VAR {b} = VAR {a} " for a, b in pairwise(own))])
        return names[: hops + 1], chains

    def _name(self, letters: int) -> str:
        return "".join(self.stream.choices(string.ascii_uppercase, k=letters))

    def _value(self) -> str:
        return str(self.values.randint(LOWEST, BELOW))

    def _context(self, lines: Sequence[str], marks: Sequence[bool]) -> tuple[str, list[tuple[int, int]]]:
        joint = "\n" if self.layout == "pinned" else " "
        context = joint.join(lines).replace(". \n", ".\n")
        spans, at = [], 0
        for line in (line for line, mark in zip(lines, marks, strict=True) if mark):
            statement = line.strip()
            at = context.index(statement, at)
            spans.append((at, at + len(statement)))
            at += len(statement)
        return context, spans

    def with_example(self, made: Made, example: Made) -> Made:
        """The prompt behind an example whose names (and, at the pinned commit, value) are drawn again."""
        text, names = self.example_text(example), list(example.references)
        for name in names:
            text = text.replace(name, self._name(len(name)))
        if self.layout == "pinned":
            text = text.replace(EXAMPLE_VALUE, self._value())
        first, *rest = made.prompt.segments
        lead = replace(first, text=text + self._gap + first.text)
        return replace(made, prompt=Prompt(segments=(lead, *rest)))

    @property
    def _gap(self) -> str:
        return "\n" if self.layout == "pinned" else "\n\n"

    def example_text(self, example: Made) -> str:
        """The example with its answer."""
        return f"{example.prompt.text} {' '.join(example.references)}{self._gap}"


def chain_samples(
    run: ChainRun, level: int, room: int, cut: int, max_tokens: int, where: str, count: Count
) -> Iterator[Made]:
    """The run's samples, without an end: first the example is found, then the prompts. cut: tokens taken off each
    length for a chat template."""
    step = SHORT_STEP if level < SHORT and run.layout == "pinned" else STEP
    short = Search(room=EXAMPLE_TOKENS - cut, step=EXAMPLE_STEP, first=EXAMPLE_STEP, extra=0, where=where)
    search = Search(room=room, step=step, first=step, extra=max_tokens, where=where)
    maker = replace(run, example=True)
    if run.layout == "paper":
        short = replace(short, extra=max_tokens)
        example = next(samples(maker, _paper_units(maker, short, count), short, count, max_tokens))
        search = replace(search, extra=count(run.example_text(example)) + max_tokens)
        for made in samples(run, _paper_units(run, search, count), search, count, search.extra):
            yield run.with_example(made, example)
    example = next(samples(maker, short.units(maker, count), short, count, 0))
    search = replace(search, extra=count(run.example_text(example)) + max_tokens)
    n = search.units(run, count)
    yield from samples(run, n, search, count, max_tokens, lambda made: run.with_example(made, example))


def _paper_units(run: ChainRun, search: Search, count: Count) -> int:
    """Lines in steps from one step on, the answer counted with the prompt. Where a length is met to the token the
    authors' search ends a step too high, which its samples come down from."""
    n, total = search.step, 0
    while total + search.extra < search.room:
        made = run.make(n, 0)
        total = count(f"{made.prompt.text} {list(made.references)}")
        if total + search.extra > search.room:
            return n - search.step
        n += search.step
    return n
