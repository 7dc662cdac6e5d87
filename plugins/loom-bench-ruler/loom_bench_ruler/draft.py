"""What a task of loom's variant makes: a draft that grows to a length, the text with its evidence. Knows no task."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from loom_core.api import Json

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Body:
    """A context, and where in it the evidence of each reference stands (characters); none where all of it counts."""

    context: str
    spans: Spans = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a sample asks, whatever its length. blanks: what fills the wording. several: more than one value is asked
    for. oracle: an answer that deserves the full score."""

    references: tuple[str, ...]
    blanks: Mapping[str, str]
    oracle: str
    several: bool = False
    depth: float | None = None
    meta: Mapping[str, Json] = field(default_factory=dict)


class Draft(Protocol):
    """One sample, still without a length. Everything random in it is drawn already."""

    @property
    def ask(self) -> Ask:
        """What is asked."""

    @property
    def frame(self) -> float:
        """Tokens that padding costs beside its own; 0 where padding is not used."""

    def fit(self, room: float) -> tuple[int, float]:
        """How many units of filler fit into `room` tokens beside what is always there, and what they cost."""

    def body(self, n: int, padding: str = "") -> Body:
        """The context with n units; padding: a piece of prose that fills what is left."""


class Maker(Protocol):
    """Makes the drafts of one task at one length.

    least: units without which the question has no meaning.
    """

    @property
    def least(self) -> int:
        """Units."""

    def draft(self, draw: random.Random, index: int) -> Draft:
        """A draft, drawn from `draw` alone; `index` spreads depths evenly."""


def insert(pieces: Sequence[str], inserts: Sequence[tuple[int, str]], joint: str) -> Body:
    """The pieces joined, each insert standing before the piece with its index; inserts at one place keep their order.

    The spans are those of the inserts, in the order given.
    """
    parts: list[str] = []
    spans: dict[int, tuple[int, int]] = {}
    at = length = 0
    for i in sorted(range(len(inserts)), key=lambda i: inserts[i][0]):
        place, text = inserts[i]
        if place > at:
            chunk = joint.join(pieces[at:place])
            parts.append(chunk)
            length += len(chunk) + len(joint)
            at = place
        parts.append(text)
        spans[i] = (length, length + len(text))
        length += len(text) + len(joint)
    if at < len(pieces):
        parts.append(joint.join(pieces[at:]))
    return Body(joint.join(parts), tuple(spans[i] for i in range(len(inserts))))
