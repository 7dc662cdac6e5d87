"""What a line of an official table is made of: the weight of each graded row in it, read from the aggregation itself.

Nothing is inferred from the scores of a run, which may be all alike. The benchmark's `aggregate` is given the same rows
with other values: 1 for one part of the rows and 0 for the rest tells the weight of that part; random values tell
whether the line is that weighted mean. A part is a task at a level, as far as lines name the same rows of it
(`contracts.Line.rows`). Knows rows and `aggregate`; knows no interval.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from loom_core.contract.errors import LoomError
from loom_core.contract.keys import seed_of
from loom_core.contract.protocols import Benchmark, Graded, Line

LineName: TypeAlias = tuple[str, str]
Spot: TypeAlias = tuple[str, str, int]
CHECKS = 4
TOLERANCE = 2e-4
NO_MEAN = "no mean of its answers"
UNREAD = "its aggregation fails on the values that its weights are read with"
UNNAMED = "it counts rows that it does not name"
MOST_ROUNDING = 6e-3
"""Of the scale: authors average numbers that they have rounded, and print rounded means."""


class WeighedRow(NamedTuple):
    """A row that counts: its value as a share of the metric's range, and its weight in the line."""

    row: Graded
    value: float
    weight: float


@dataclass(frozen=True, slots=True)
class Composition:
    """A line that is base + scale · Σ weight · value: values as shares of the metric's range, weights adding up to 1.

    weights: of each part; parts: of each row. ranges: of the metrics, 0 to 1 where one has no ends.
    """

    metric: str
    base: float
    scale: float
    ranges: Mapping[str, tuple[float, float]]
    weights: Mapping[Hashable, float]
    parts: Mapping[Spot, Hashable]

    def rows(self, rows: Sequence[Graded]) -> list[WeighedRow]:
        """The rows that count."""
        counted: dict[Hashable, list[tuple[Graded, float]]] = {}
        for row in rows:
            value, part = self.share(row), self.parts[spot(row)]
            if value is not None and part in self.weights:
                counted.setdefault(part, []).append((row, value))
        return [
            WeighedRow(row, value, self.weights[part] / len(members))
            for part, members in counted.items()
            for row, value in members
        ]

    def share(self, row: Graded) -> float | None:
        """The value of a row as a share of its metric's range; None where it has none."""
        name = metric_of(self.metric, row)
        value = row.scored[name].value if name is not None else None
        if name is None or value is None:
            return None
        low, high = self.ranges[name]
        return (value - low) / (high - low)

    def value(self, rows: Sequence[Graded]) -> float:
        """The line as its weights make it of these rows."""
        return self.base + self.scale * math.fsum(each.weight * each.value for each in self.rows(rows))


def metric_of(name: str, row: Graded) -> str | None:
    """The metric of a row that a line named `name` is made of: that one, else the only one the row has (a mean over
    tasks of several metrics has a name of its own).
    """
    if name in row.scored:
        return name
    return next(iter(row.scored)) if len(row.scored) == 1 else None


def spot(row: Graded) -> Spot:
    """Where a row stands."""
    return row.task, row.sample.id, row.repeat


def compositions(
    benchmark: Benchmark, rows: Sequence[Graded], lines: Sequence[Line], bounds: Mapping[str, tuple[float, float]]
) -> tuple[dict[LineName, Composition], dict[LineName, str]]:
    """The lines that are weighted means of their rows, and why others are not. bounds: ranges of the metrics."""
    wanted = {(line.name, line.metric): line for line in lines if line.value is not None}
    named = {name: {spot(row) for row in line.rows} for name, line in wanted.items() if line.rows is not None}
    parts: dict[Spot, Hashable] = {
        spot(row): (row.task, row.sample.level, *(spot(row) in members for members in named.values())) for row in rows
    }
    ranges = {name: _finite(bounds.get(name, (0.0, 1.0))) for row in rows for name in row.scored}
    tested = (None, *dict.fromkeys(parts.values()))
    try:
        tables = {part: _values(benchmark, _only(rows, ranges, parts, part)) for part in tested}
        tried = [_random(rows, ranges, parts, i) for i in range(CHECKS)]
        checks = [(made, _values(benchmark, made)) for made in tried]
    except LoomError:  # an aggregation may refuse values that were made up: it then tells no weights
        return {}, dict.fromkeys(wanted, UNREAD)
    found, others = dict[LineName, Composition](), dict.fromkeys(wanted, NO_MEAN)
    for name, line in wanted.items():
        given = {part: table.get(name) for part, table in tables.items()}
        made = _composition(line.metric, given, ranges, parts)
        if made is None:
            continue
        if name in named and not {spot(each.row) for each in made.rows(rows)} <= named[name]:
            others[name] = UNNAMED
            continue
        slack = made.scale * max(TOLERANCE, min(0.51 * 10.0**-line.digits / made.scale, MOST_ROUNDING))
        if all(_near(table.get(name), made.value(values), slack) for values, table in checks):
            found[name] = made
            del others[name]
    return found, others


def _finite(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    return bounds if math.isfinite(high - low) and high > low else (0.0, 1.0)


def _near(given: float | None, expected: float, slack: float) -> bool:
    return given is not None and abs(given - expected) <= slack


def _composition(
    metric: str,
    given: Mapping[Hashable, float | None],
    ranges: Mapping[str, tuple[float, float]],
    parts: Mapping[Spot, Hashable],
) -> Composition | None:
    """Weights from what the line is where one part has its best value (None: where none has)."""
    base = given[None]
    if base is None or any(value is None for value in given.values()):
        return None
    gains = {part: value - base for part, value in given.items() if part is not None and value is not None}
    scale = math.fsum(gains.values())
    if scale <= 0 or min(gains.values()) < -TOLERANCE * scale:
        return None
    weights = {part: gain / scale for part, gain in gains.items() if gain > TOLERANCE / 10 * scale}
    whole = math.fsum(weights.values())
    return Composition(metric, base, scale, ranges, {part: w / whole for part, w in weights.items()}, parts)


def _random(
    rows: Sequence[Graded], ranges: Mapping[str, tuple[float, float]], parts: Mapping[Spot, Hashable], number: int
) -> list[Graded]:
    """The rows with random values that differ by metric, part and row."""
    generator = random.Random(seed_of(f"composition {number}"))
    levels = {(name, part): generator.random() for name in ranges for part in dict.fromkeys(parts.values())}
    return _given(rows, ranges, lambda row, name: (levels[name, parts[spot(row)]] + generator.random()) / 2)


def _only(
    rows: Sequence[Graded], ranges: Mapping[str, tuple[float, float]], parts: Mapping[Spot, Hashable], part: Hashable
) -> list[Graded]:
    """The rows with the top of the range in one part, and its bottom in all others."""
    return _given(rows, ranges, lambda row, _: float(parts[spot(row)] == part))


def _values(benchmark: Benchmark, rows: Sequence[Graded]) -> dict[LineName, float | None]:
    lines = benchmark.aggregate(rows)
    finite = ((line, line.value is not None and math.isfinite(line.value)) for line in lines)
    return {(line.name, line.metric): line.value if known else None for line, known in finite}


def _given(
    rows: Sequence[Graded], ranges: Mapping[str, tuple[float, float]], value: Callable[[Graded, str], float]
) -> list[Graded]:
    """The rows with other values (as shares of the metric's range): what has no value keeps none."""
    made = []
    for row in rows:
        scored = {
            name: one if one.value is None else replace(one, value=_scaled(ranges[name], value(row, name)))
            for name, one in row.scored.items()
        }
        made.append(replace(row, scored=scored))
    return made


def _scaled(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + share * (bounds[1] - bounds[0])
