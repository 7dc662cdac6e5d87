"""loom's variable tracking: a chain of assignments hidden in noise. Knows no prompt.

Source of the idea: NVIDIA/RULER, scripts/data/synthetic/variable_tracking.py; `chain_run` is their generator.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from loom_bench_ruler.draft import Ask, Body, insert
from loom_bench_ruler.meter import Meter, Pool, Strand
from loom_bench_ruler.settings import Chains
from loom_bench_ruler.words import distinct, noise

NAME_LETTERS = 5


@dataclass(frozen=True, slots=True)
class Form:
    """How assignments are written. first: blanks {name} and {value}; copy: blanks {name} and {other}."""

    first: str
    copy: str


LOOM_FORM = Form("Box {name} holds {value}.", "Box {name} holds whatever box {other} holds.")


def a_name(draw: random.Random) -> str:
    """Random capitals."""
    return "".join(draw.choices(string.ascii_uppercase, k=NAME_LETTERS))


def a_value(draw: random.Random) -> str:
    """Five digits."""
    return str(draw.randrange(10000, 99999))


def chain(form: Form, names: Sequence[str], value: str) -> list[str]:
    """The assignments of one chain, in order."""
    rest = [form.copy.format(name=b, other=a) for a, b in pairwise(names)]
    return [form.first.format(name=names[0], value=value), *rest]


@dataclass(frozen=True, slots=True)
class ChainDraft:
    """A sample's assignments, and a depth for each, ascending within a chain. asked: how many the first chain has."""

    ask: Ask
    strand: Strand
    joint: str
    statements: Sequence[str]
    depths: Sequence[float]
    asked: int
    frame: float = 1.0

    def fit(self, room: float) -> tuple[int, float]:
        """As the strand says."""
        return self.strand.fit(room)

    def body(self, n: int, padding: str = "") -> Body:
        """Every assignment before piece int(n · depth)."""
        pieces = self.strand.take(n) + ([padding] if padding else [])
        places = [(int(n * depth), text) for depth, text in zip(self.depths, self.statements, strict=True)]
        body = insert(pieces, places, self.joint)
        return Body(body.context, body.spans[: self.asked])


@dataclass(frozen=True, slots=True)
class ChainMaker:
    """Drafts of variable tracking, without an example in front."""

    settings: Chains
    pool: Pool
    form: Form = LOOM_FORM
    joint: str = "\n"
    least: int = 0

    def draft(self, draw: random.Random, index: int) -> ChainDraft:
        """Names of five letters, all different; the value of the first chain is asked for."""
        settings, length = self.settings, self.settings.hops + 1
        names = distinct(lambda: a_name(draw), settings.chains * length)
        values = distinct(lambda: a_value(draw), settings.chains)
        statements: list[str] = []
        depths: list[float] = []
        for i, value in enumerate(values):
            statements += chain(self.form, names[i * length : (i + 1) * length], value)
            depths += sorted(draw.random() for _ in range(length))
        asked = names[:length]
        return ChainDraft(
            ask=chain_ask(asked, values[0]),
            strand=Strand(self.pool, None),
            joint=self.joint,
            statements=statements,
            depths=depths,
            asked=length,
        )


def chain_ask(names: Sequence[str], value: str) -> Ask:
    """The question for every name that holds `value`."""
    return Ask(
        references=tuple(names),
        blanks={"query": value, "num_v": str(len(names)), "count": str(len(names))},
        oracle=" ".join(names),
        several=len(names) > 1,
    )


def loom_chains(settings: Chains, meter: Meter) -> ChainMaker:
    """loom's variant: its own noise and its own form of an assignment."""
    return ChainMaker(settings, meter.pool([noise()], "\n"))
