"""Samples of one task at one length: loom's own filled to just under it, chat template included; the authors' as made.

Knows drafts and tokens, no file.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

from loom_bench_ruler.draft import Body, Draft, Maker
from loom_bench_ruler.meter import Meter
from loom_bench_ruler.runs import Made
from loom_bench_ruler.settings import Wording
from loom_bench_ruler.words import sentence
from loom_core.api import Evidence, Prompt, Sample, UsageError, segment

AIM = 0.996
"""How much of a length loom's variant aims at: sums of tokens are true to a few in a thousand."""
TOLERANCE = 0.02
FARTHEST_OFF = 2.0
"""A tokenizer whose texts have twice the tokens of their pieces, or half, cannot be planned with sums."""
PADDING_SENTENCES = 12


@dataclass
class _Level:
    """Samples of one task at one length."""

    wording: Wording
    maker: Maker
    meter: Meter
    task: str
    level: int
    seed: int

    def _draw(self, index: int) -> tuple[str, random.Random]:
        name = f"{self.task}-t{self.level}-{index}"
        return name, random.Random(f"ruler {self.seed} {name}")

    def _draft(self, index: int) -> Draft:
        return self.maker.draft(self._draw(index)[1], index)

    def _prompt(self, draft: Draft, body: Body) -> Prompt:
        ask = draft.ask
        wording = self.wording.several() if ask.several and self.wording.plural else self.wording
        before, after, prefix = (text.format(**ask.blanks) for text in (wording.before, wording.after, wording.prefix))
        return Prompt(
            segments=(
                segment("instruction", before),
                segment("context", body.context),
                segment("question", after),
                segment("prefill", prefix),
            )
        )

    def _too_short(self, needed: float) -> UsageError:
        return UsageError(
            "a length is too short for the task",
            where=f"ruler:{self.task}, length {self.level}",
            why=f"the smallest prompt has {needed:.0f} tokens",
            hint=f"ask for at least {needed / AIM + 1:.0f} tokens",
        )

    def _unreached(self, true: float) -> UsageError:
        return UsageError(
            "this tokenizer does not reach a length",
            where=f"ruler:{self.task}, length {self.level}",
            why=f"a prompt meant to have {self.level} tokens has {true:.0f}",
            hint="check the model's tokenizer, or ask for another length",
        )

    def _sample(self, index: int, draft: Draft, body: Body, n: int) -> Sample:
        meta = {"units": n, "oracle": draft.ask.oracle, **draft.ask.meta}
        return Sample(
            id=self._draw(index)[0],
            task=self.task,
            prompt=self._prompt(draft, body),
            references=draft.ask.references,
            level=level_name(self.level),
            depth=draft.ask.depth,
            evidence=tuple(Evidence(segment=1, start=start, end=end) for start, end in body.spans),
            meta=meta | self.meter.meta,
        )


def level_name(level: int) -> str:
    """A length as tables name it."""
    return f"{level // 1024}k" if level % 1024 == 0 else str(level)


def official_sample(made: Made, task: str, level: int, index: int, meter: Meter) -> Sample:
    """What a run of the authors' generator made, as a sample."""
    return Sample(
        id=f"{task}-t{level}-{index}",
        task=task,
        prompt=made.prompt,
        references=made.references,
        level=level_name(level),
        evidence=tuple(Evidence(segment=made.context, start=start, end=end) for start, end in made.spans),
        meta={"units": made.units, "oracle": made.oracle, **made.meta, **meter.meta},
    )


@dataclass
class Filled(_Level):
    """loom's variant: the context is filled to the length by sums of measured pieces, then by single words.

    The first sample of a task and length is tokenised as a whole; what its sum was off by corrects all of them.
    """

    def sample(self, index: int) -> Sample:
        """One sample."""
        draft, n, body, _ = self._filled(index, self._factor)
        return self._sample(index, draft, body, n)

    @cached_property
    def _factor(self) -> float:
        """True tokens of the filler for each token of its sum. Raises UsageError where that does not settle."""
        factor = 1.0
        for _ in range(2):
            draft, _, body, cost = self._filled(0, factor)
            empty = self.meter.prompt(self._prompt(draft, draft.body(0)))
            true = self.meter.prompt(self._prompt(draft, body))
            off = (true - empty) / max(1.0, cost * factor)
            if abs(off - 1) * cost * factor < (1 - AIM) / 2 * self.level:
                return factor
            if not 1 / FARTHEST_OFF < off < FARTHEST_OFF:
                raise self._unreached(true)
            factor *= off
        draft, _, body, _ = self._filled(0, factor)
        true = self.meter.prompt(self._prompt(draft, body))
        if abs(true / (self.level * AIM) - 1) > TOLERANCE / 2:
            raise self._unreached(true)
        return factor

    def _filled(self, index: int, factor: float) -> tuple[Draft, int, Body, float]:
        """A sample's draft, its units, its context, and the sum of the filler's tokens."""
        draft = self._draft(index)
        empty = self.meter.prompt(self._prompt(draft, draft.body(0)))
        room = (self.level * AIM - empty) / factor
        n, cost = draft.fit(room) if room >= 0 else (-1, 0.0)
        if n < self.maker.least:
            raise self._too_short(self.meter.prompt(self._prompt(draft, draft.body(self.maker.least))))
        draw = random.Random(f"{self._draw(index)[0]} padding")
        text = " ".join(sentence(draw) for _ in range(PADDING_SENTENCES))
        padding, more = self.meter.head(text, room - cost - draft.frame) if draft.frame else ("", 0.0)
        return draft, n, draft.body(n, padding), cost + (more + draft.frame if padding else 0.0)
