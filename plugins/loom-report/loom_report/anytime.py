"""Anytime evaluation: which questions to ask next so that the widest interval gets narrowest. Pure: no file, no model.

Questions are drawn in whole units (a document, or what is scored as one group) with all their arms and repeats. A
stratum is a task at a level; within one, every unit has the same chance: units are asked in a seeded random order, and
scores decide only how far each stratum is followed. What a stratified subset then estimates is in `weighting`.
Source: Cochran 1977, "Sampling Techniques", chapter 5 (stratified sampling, allocation by variance).
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from loom_core.contract.types import Json

PILOT_UNITS = 16
"""Units of each stratum that are asked whatever they score: below that a variance is a guess."""
FIRST_ROUND = 4
STEP = 0.5
"""Share of the predicted need that a batch covers: a variance that looked too large must not cost many questions."""
GROWTH = 0.125
"""Questions of a batch without a wanted width, as a share of those asked so far."""
RULE = (
    f"all arms of whole units (documents, groups) by strata (task and level) in a seeded random order: {PILOT_UNITS} "
    "units of each stratum first, then batches for the strata whose widest primary interval is widest; a batch is "
    "always finished"
)


class Asked(NamedTuple):
    """What sampling needs of a question: its coordinates, and what it hangs together with."""

    task: str
    sample: str
    level: str | None
    cluster: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Stratum:
    """The planned questions of a task at a level (None: of all levels, where a unit spans several), as units in the
    order in which they are asked.
    """

    task: str
    level: str | None
    units: tuple[tuple[str, ...], ...]

    @property
    def name(self) -> str:
        """For messages."""
        return self.task if self.level is None else f"{self.task} at {self.level}"


def strata_of(questions: Iterable[Asked], seed: int) -> list[Stratum]:
    """The strata of the planned questions, in the order of the plan."""
    by_task: dict[str, list[Asked]] = {}
    for question in questions:
        by_task.setdefault(question.task, []).append(question)
    found = []
    for task, asked in by_task.items():
        units = [*_units(asked)]
        apart = all(len({question.level for question in unit}) == 1 for unit in units)
        levels: dict[str | None, list[tuple[str, ...]]] = {}
        for unit in units:
            names = tuple(question.sample for question in unit)
            levels.setdefault(unit[0].level if apart else None, []).append(names)
        for level, rows in levels.items():
            ordered = sorted(rows, key=lambda unit: _place(seed, task, unit))
            found.append(Stratum(task, level, tuple(ordered)))
    return found


def _place(seed: int, task: str, unit: Sequence[str]) -> str:
    """A unit's place in the random order."""
    return hashlib.sha256("\0".join((str(seed), task, *unit)).encode("utf-8", "surrogatepass")).hexdigest()


def _units(questions: Sequence[Asked]) -> Iterable[list[Asked]]:
    """Questions of one task joined by document and group."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(name: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for question in questions:
        for kind, name in (("document", question.cluster), ("group", question.group)):
            if name is not None:
                parent[root((kind, name))] = root(("question", question.sample))
    found: dict[tuple[str, str], list[Asked]] = {}
    for question in questions:
        found.setdefault(root(("question", question.sample)), []).append(question)
    return found.values()


@dataclass
class Standing:
    """How far a stratum is. half_width: of its widest primary interval, as a share of the metric's range; None where
    nothing has a value yet, inf where no value can be had of it.
    """

    n_units: int
    taken: int = 0
    half_width: float | None = None

    @property
    def exhausted(self) -> bool:
        """True if no unit is left."""
        return self.taken >= self.n_units

    def predicted(self, taken: int) -> float:
        """The half-width to expect after that many units."""
        width = self.half_width
        if width is None:
            return math.inf if taken < PILOT_UNITS else 0.0
        return width * math.sqrt(self.taken / taken)


def pilot(standings: Sequence[Standing]) -> list[int]:
    """Units to add to each stratum while the pilot lasts, in rounds of doubling size; all zero when it is over."""
    least = min((s.taken for s in standings if s.taken < min(PILOT_UNITS, s.n_units)), default=PILOT_UNITS)
    reach = next((size for size in _rounds() if size > least), PILOT_UNITS)
    return [max(0, min(reach, s.n_units) - s.taken) for s in standings]


def _rounds() -> Iterable[int]:
    size = FIRST_ROUND
    while size <= PILOT_UNITS:
        yield size
        size *= 2


def allot(standings: Sequence[Standing], *, until: float | None, least: int, most: float = math.inf) -> list[int]:
    """Units to add to each stratum in the next batch, the widest first; all zero when nothing is to be done.

    until: the half-width wanted, as a share of the range. least: units that keep every worker busy. most: units for
    which there is time.
    """
    first = pilot(standings)
    if any(first):
        return _cut(first, most)
    open_ = [i for i, s in enumerate(standings) if not s.exhausted and _wanted(s, until)]
    limits = {i: standings[i].n_units - standings[i].taken for i in open_}
    if until is None:
        size = max(least, int(GROWTH * sum(s.taken for s in standings)))
    else:
        needs = {i: _need(standings[i], until) for i in open_}
        limits = {i: min(limits[i], max(needs[i], least)) for i in open_}
        size = max(least, sum(needs.values()))
    added = [0] * len(standings)
    heap = [(-standings[i].predicted(standings[i].taken), i) for i in open_]
    heapq.heapify(heap)
    for _ in range(int(min(size, most, sum(limits.values())))):
        _, i = heapq.heappop(heap)
        added[i] += 1
        if added[i] < limits[i]:
            heapq.heappush(heap, (-standings[i].predicted(standings[i].taken + added[i]), i))
    return added


def _wanted(standing: Standing, until: float | None) -> bool:
    """True where more units would help: strata without values never steer the rest."""
    width = standing.half_width
    return width is not None and math.isfinite(width) and (until is None or width > until)


def _need(standing: Standing, until: float) -> int:
    """A share of the units that are predicted to be missing; at least one."""
    assert standing.half_width is not None
    return max(1, int(STEP * standing.taken * ((standing.half_width / until) ** 2 - 1)))


def _cut(added: Sequence[int], most: float) -> list[int]:
    """At most so many units, dealt in turns: while the pilot lasts no stratum is before the others."""
    left, dealt = [*added], [0] * len(added)
    budget = int(min(most, sum(added)))
    while budget > 0:
        for i, rest in enumerate(left):
            if rest > 0 and budget > 0:
                left[i], dealt[i], budget = rest - 1, dealt[i] + 1, budget - 1
    return dealt


def elasticities(taken: Sequence[int], n_units: Sequence[int], until: float | None) -> list[float]:
    """How strongly the size of each stratum follows its own variance, 0 to 1 (see `weighting.shift`).

    1 under a wanted width. Under a given time strata compete: 1 less the stratum's share of what was dealt by width. 0
    where the pilot was enough or everything was asked: that size does not depend on scores.
    """
    steered = [PILOT_UNITS < k < n for k, n in zip(taken, n_units, strict=True)]
    total = sum(k for k, free in zip(taken, steered, strict=True) if free)
    return [
        0.0 if not free else 1.0 if until is not None else 1.0 - k / total
        for k, free in zip(taken, steered, strict=True)
    ]


def widest(strata: Sequence[Stratum], standings: Sequence[Standing]) -> dict[str, Json] | None:
    """The stratum with the widest interval, for records and messages."""
    known = [
        (standing.half_width, stratum)
        for stratum, standing in zip(strata, standings, strict=True)
        if standing.half_width is not None and math.isfinite(standing.half_width)
    ]
    if not known:
        return None
    width, stratum = max(known, key=lambda pair: pair[0])
    return {"task": stratum.task, "level": stratum.level, "half_width": width}


def taken_of(record: Mapping[str, Json]) -> list[int]:
    """Units asked of each stratum so far, from the record in a manifest."""
    sums = [0] * len(record["strata"])
    for batch in record["batches"]:
        sums = [a + b for a, b in zip(sums, batch["added"], strict=True)]
    return sums
