"""What a stratified subset of a run's questions says of all of them: weights, and the correction for stopping early.

Where scores decide how far a stratum is followed, its mean is off by about 1/n: a stratum that looks easy is left
early. The correction takes that away to the first order. Knows numbers and the record of `anytime`, no
file.
Sources: Cox 1952, "Estimation by double sampling", Biometrika 39 (for a share p with n answers it is (1 - 2p) / n);
Cochran 1977, "Sampling Techniques", sections 4.7 and 5.3 to 5.5.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from loom_core.contract.types import Json
from loom_report import anytime
from loom_report.statistics import stats, strata

Rows: TypeAlias = Sequence[tuple[Hashable, float]]
"""(unit, value) of each answer."""


class Part(NamedTuple):
    """A stratum as it was sampled. elasticity: how strongly its size follows its variance. weight: its share of the
    task's planned questions.
    """

    level: str | None
    taken: int
    n_units: int
    elasticity: float
    weight: float

    @property
    def fraction(self) -> float:
        """Share of units asked."""
        return self.taken / self.n_units if self.n_units else 1.0


class Steered:
    """The strata of a run that was made by the clock or up to a width, by task."""

    def __init__(self, record: Mapping[str, Json]) -> None:
        rows, taken = record["strata"], anytime.taken_of(record)
        elastic = anytime.elasticities(taken, [row["n_units"] for row in rows], record["until"])
        planned: dict[str, int] = {}
        for row in rows:
            planned[row["task"]] = planned.get(row["task"], 0) + row["n_questions"]
        self._parts: dict[str, list[Part]] = {}
        for row, k, elasticity in zip(rows, taken, elastic, strict=True):
            weight = row["n_questions"] / planned[row["task"]]
            part = Part(row["level"], k, row["n_units"], elasticity, weight)
            self._parts.setdefault(row["task"], []).append(part)

    def part(self, task: str, level: str | None) -> Part | None:
        """The stratum that a cell is, where it is one."""
        return next((part for part in self._parts.get(task, ()) if part.level == level), None)

    def weights(self, task: str) -> dict[str | None, float] | None:
        """Weights of a task's levels where they were not asked to the same extent; None where a plain mean will do."""
        parts = self._parts.get(task, [])
        if len({part.fraction for part in parts}) < 2:
            return None
        return {part.level: part.weight for part in parts}


def everything_asked(record: Mapping[str, Json]) -> bool:
    """True where no unit is left: then a run is as any other."""
    return all(k >= row["n_units"] for k, row in zip(anytime.taken_of(record), record["strata"], strict=True))


def shift(rows: Rows, steering: Rows, part: Part) -> float:
    """What to add to the mean of `rows` because values of `steering` (of the widest arm) decided how many there are.

    With residuals r of `rows` and s of `steering` per unit: elasticity · (1 - fraction) · mean(r s²) / (n · mean(s²)).
    """
    if part.elasticity <= 0 or part.fraction >= 1:
        return 0.0
    mine, theirs = _residuals(rows), _residuals(steering)
    common = [unit for unit in mine if unit in theirs]
    square = sum(theirs[unit] ** 2 for unit in common)
    if len(common) < 2 or square <= 1e-15:
        return 0.0
    third = sum(mine[unit] * theirs[unit] ** 2 for unit in common)
    return part.elasticity * (1 - part.fraction) * third / (len(common) * square)


def _residuals(rows: Rows) -> dict[Hashable, float]:
    """Per unit, its sum less what the mean predicts, over the mean size of a unit."""
    if not rows:
        return {}
    mean = sum(value for _, value in rows) / len(rows)
    sums: dict[Hashable, float] = {}
    for unit, value in rows:
        sums[unit] = sums.get(unit, 0.0) + value - mean
    size = len(rows) / len(sums)
    return {unit: total / size for unit, total in sums.items()}


def combined(parts: Sequence[tuple[float, Mapping[str, Json]]], key: str) -> dict[str, Json]:
    """The weighted mean of levels' estimates (weight, {key, low, high}) with its interval: value, low, high, interval.

    All None where a level has no estimate. The variance of each level is that of its interval.
    """
    none: dict[str, Json] = {"value": None, "low": None, "high": None, "interval": "none: a level has no answer"}
    if any(row.get(key) is None or row.get("low") is None for _, row in parts):
        return none
    value = math.fsum(weight * row[key] for weight, row in parts)
    below = math.sqrt(math.fsum((weight * (row[key] - row["low"])) ** 2 for weight, row in parts))
    above = math.sqrt(math.fsum((weight * (row["high"] - row[key])) ** 2 for weight, row in parts))
    return {"value": value, "low": value - below, "high": value + above, "interval": "stratified"}


def combined_difference(
    parts: Sequence[tuple[float, Mapping[str, Json]]],
    pairs: Sequence[tuple[str, Hashable, float]],
    weights: Mapping[str | None, float],
    seed: int,
) -> dict[str, Json]:
    """`combined` of levels' differences, with the sign-flip test of the pairs (level, cluster, difference), which count
    by their level's weight. Interval and test agree (`strata.agreed`).
    """
    found = combined(parts, "value")
    if found["value"] is None:
        return found
    value, low, high = found["value"], found["low"], found["high"]
    half = value - low if value > 0 else high - value
    p = math.erfc(stats.z_quantile() * abs(value) / half / math.sqrt(2)) if half > 0 else float(value == 0)
    compared = strata.Compared(stats.Interval(low, high, found["interval"]), p)
    interval, tested = strata.agreed(compared, _weighted_test(pairs, weights, seed))
    return found | {"low": interval.low, "high": interval.high, "p": tested.p, "test": tested.method}


def _weighted_test(
    pairs: Sequence[tuple[str, Hashable, float]], weights: Mapping[str | None, float], seed: int
) -> stats.Tested:
    n: dict[str, int] = {}
    for level, _, _ in pairs:
        n[level] = n.get(level, 0) + 1
    scaled = [difference * weights.get(level, 0.0) * len(pairs) / n[level] for level, _, difference in pairs]
    found = stats.sign_flip(scaled, [cluster for _, cluster, _ in pairs], seed=seed)
    return found._replace(method=found.method + ", weighted")
