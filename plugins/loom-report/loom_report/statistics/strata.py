"""Intervals of weighted means over strata: a mean over tasks, over lengths, over languages, and its differences.

A stratum is what a design fixes (a task at a length); within it, clusters (documents, questions) are drawn. Knows
numbers: no table, no row. What a stratum of two equal answers hides is not taken for certainty: its own variance counts
for G / (G + 2) of G clusters, that around the common mean for the rest, which is never too small on average.

Sources: Cochran 1977, "Sampling Techniques", sections 5.3 and 5A.12 (strata, and strata collapsed where they are
small); Korn & Graubard 1998, Survey Methodology 24 (a proportion's interval on the effective sample size); Bonett &
Price 2012, J. Educ. Behav. Stat. 37 (one pair added to each side of a difference). The share G / (G + 2) is loom's own:
`tests/test_strata.py` simulates what it covers.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from loom_report.statistics import stats

PRIOR = 2.0
"""Clusters that the variance around the common mean counts for, in each stratum."""

FEW = 1.5
"""Whole answers' worth away from an end of the range that a spread over strata is taken from (`stats.known_spread`)."""


class Weighed(NamedTuple):
    """One answer: its value, its weight in the line (all weights add up to 1), what it is drawn with, and in what."""

    value: float
    weight: float
    cluster: Hashable
    stratum: Hashable


class Moments(NamedTuple):
    """What an interval is made of. size: independent answers of equal weight that would tell as much, if all strata
    were alike. factor: how much wider than a normal interval, since variances are estimated.
    """

    mean: float
    variance: float
    common: float
    size: float
    factor: float
    n_clusters: int
    binary: bool
    n_apart: int


def moments(rows: Sequence[Weighed], worst: float = 0.0) -> Moments:
    """The moments of a weighted mean. worst: the value (besides 1) that makes scores binary: -1 for differences.

    Raises ValueError where there is no row, a value is not finite, or the weights do not add up to 1.
    """
    import numpy as np

    values, weights = (np.asarray([row[i] for row in rows], dtype=np.float64) for i in (0, 1))
    if not rows or not np.isfinite(values).all() or abs(float(weights.sum()) - 1) > 1e-6:
        raise ValueError("a weighted mean needs finite values and weights that add up to 1")
    cells, n_cells = _codes([row.stratum for row in rows])
    units, n_units = _codes([row.cluster for row in rows])
    mean = float((weights * values).sum())
    shares = np.bincount(cells, weights=weights, minlength=n_cells)
    inner = np.bincount(cells, weights=weights * values, minlength=n_cells) / np.where(shares > 0, shares, 1.0)
    within = np.bincount(units, weights=weights * (values - inner[cells]), minlength=n_units) ** 2
    around = np.bincount(units, weights=weights * (values - mean), minlength=n_units) ** 2
    heavy = np.bincount(units, weights=weights, minlength=n_units) ** 2
    joint, n_joint = _joint(units, cells, n_units)
    held = np.bincount(joint, minlength=n_joint).astype(np.float64)
    trust = np.where(held > 1, held / (held + PRIOR), 0.0)[joint]
    unbiased = (held / np.maximum(held - 1, 1.0))[joint]
    variance = float((trust * unbiased * within + (1 - trust) * around).sum())
    share = float((trust * heavy).sum() / heavy.sum())
    binary = bool(np.isin(values, (worst, 0.0, 1.0)).all())
    factor = _factor(share, n_units - n_joint, n_units, binary)
    size = 1 / float(heavy.sum())
    n_apart = len(set(units[np.abs(values) > 1e-12].tolist()))
    return Moments(mean, variance, float(around.sum()), size, factor, n_units, binary, n_apart)


def _codes(names: Sequence[Hashable]) -> tuple[Any, int]:
    import numpy as np

    index: dict[Hashable, int] = {}
    return np.asarray([index.setdefault(name, len(index)) for name in names], dtype=np.int64), len(index)


def _joint(units: Any, cells: Any, n_units: int) -> tuple[Any, int]:
    """The stratum of each cluster; one that spans several strata is of a stratum of its own kind."""
    spans: list[set[int]] = [set() for _ in range(n_units)]
    for unit, cell in zip(units.tolist(), cells.tolist(), strict=True):
        spans[unit].add(cell)
    return _codes([frozenset(span) for span in spans])


def _factor(share: float, df: int, n_clusters: int, binary: bool) -> float:
    """Quantile of an interval over the normal one: Student's for the part of the variance that strata estimate.

    Of 0/1 scores the variance around the mean follows from the mean; of others it is estimated too.
    """
    z = stats.z_quantile()
    rest = z if binary or n_clusters < 2 else stats.t_quantile(n_clusters - 1)
    inner = stats.t_quantile(df) if df > 0 else rest
    return math.sqrt(share * inner**2 + (1 - share) * rest**2) / z


def mean_interval(found: Moments) -> stats.Interval:
    """Interval of a weighted mean of scores in [0, 1]: that of a proportion on the effective sample size."""
    size, p = found.size, min(1.0, max(0.0, found.mean))
    if found.common > 1e-15 and 0 < p < 1 and (found.binary or stats.known_spread(p, size, FEW)):
        size = p * (1 - p) / max(found.variance, 1e-12) / found.factor**2
    return stats.proportion(p * size, size)._replace(method="wilson and near-exact, stratified")


class Compared(NamedTuple):
    """An interval of a difference, and the two-sided p at which its end is 0."""

    interval: stats.Interval
    p: float


LEAST_APART, ENOUGH_APART = 6, 30
"""Graded differences that are not 0 from which Student's t alone does. A few among many zeros are too skewed for it: it
takes the second number of them, or the first where at least half of all clusters differ."""


def tells_spread(n_apart: Any, n_clusters: Any) -> Any:
    """Whether so many graded differences that are not 0, of so many clusters, tell how they spread. Also of arrays."""
    return (n_apart >= ENOUGH_APART) | ((n_apart >= LEAST_APART) & (2 * n_apart >= n_clusters))


def difference_interval(found: Moments) -> Compared:
    """Interval of a weighted mean of differences in [-1, 1]: one pair won and one lost are added to them.

    Where scores are graded, such pairs are added only while too few differences (`tells_spread`) or no spread at all
    have been seen.
    """
    size, graded = found.size, not found.binary
    seen = graded and tells_spread(found.n_apart, found.n_clusters) and found.variance > 1e-15
    added = 0.0 if seen else 2.0
    centre = found.mean * size / (size + added)
    square = (size * (size * found.variance + found.mean**2) + added) / (size + added)
    error = math.sqrt(max(0.0, square - centre**2) / (size + added)) * found.factor
    half = stats.z_quantile() * error
    low, high = max(-1.0, min(centre - half, found.mean)), min(1.0, max(centre + half, found.mean))
    p = math.erfc(abs(centre) / error / math.sqrt(2)) if error > 0 else 1.0
    return Compared(stats.Interval(low, high, "adjusted Wald" if added else "Student's t"), p)


def agreed(compared: Compared, tested: stats.Tested) -> tuple[stats.Interval, stats.Tested]:
    """An interval and a test that say the same: 0 is inside exactly where p is 0.05 or more.

    What either does not exclude is not excluded: p is the larger of the test's and the interval's, and where the test
    finds no difference at 5 % the interval reaches to 0.
    """
    (low, high, method), p = compared.interval, max(compared.p, tested.p)
    if p >= 1 - stats.LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    return stats.Interval(low, high, method), stats.Tested(p, tested.method)


def weighted_flips(rows: Sequence[Weighed], seed: int) -> stats.Tested:
    """The sign-flip test of a weighted mean of differences, over whole clusters."""
    sums: dict[Hashable, float] = {}
    for row in rows:
        sums[row.cluster] = sums.get(row.cluster, 0.0) + row.weight * row.value
    return stats.sign_flip(list(sums.values()), seed=seed)
