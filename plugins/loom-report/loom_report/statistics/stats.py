"""Intervals, paired tests and power for scores. Knows numbers only: no run, no metric, no file.

Values are per answer, `clusters` names the document each answer belongs to (None = an answer on its own). Everything
that draws is seeded: the same input gives the same output on every machine. numpy is imported on use.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

from loom_report.statistics.quantiles import near_exact_upper, t_quantile as t_quantile, z_quantile as z_quantile

LEVEL = 0.95
DRAWS = 2000
LEAST_UNBOUNDED = 30
"""Documents below which a mean of scores without bounds has no interval."""
FEW_UNBOUNDED = f"none: fewer than {LEAST_UNBOUNDED} documents, of a metric without bounds"
_CHUNK = 4_000_000


class Interval(NamedTuple):
    """A confidence interval and the name of its method."""

    low: float
    high: float
    method: str


class Tested(NamedTuple):
    """A two-sided p value and the name of its test."""

    p: float
    method: str


def wilson(k: float, n: float, level: float = LEVEL) -> Interval:
    """Interval of a proportion of `k` successes among `n` > 0 (either may be fractional: an effective size).

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22.
    """
    if not (n > 0 and 0 <= k <= n):
        raise ValueError(f"a proportion needs 0 <= k <= n and n > 0, not {k} of {n}")
    z = z_quantile(level)
    p, square = k / n, z * z
    centre = p + square / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
    scale = 1 + square / n
    # At the ends the formula equals p exactly; rounding must not push p out of its own interval.
    low, high = max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
    return Interval(0.0 if k == 0 else min(low, p), 1.0 if k == n else max(high, p), "wilson")


def proportion(k: float, n: float, level: float = LEVEL) -> Interval:
    """The interval loom prints for `k` of `n`: the wider of Wilson's and the near-exact interval, end by end.

    Wilson's is too short where p is close to 0 or 1 (84 % at p = 0.983 and n = 10). Together they cover at least
    93.4 % at every p and n: `perf/coverage.py` finds it exactly. Nothing of [0, 1] can do better with few answers
    without covering far more than 95 % elsewhere.
    """
    found, tail = wilson(k, n, level), (1 - level) / 2
    low, high = 1 - near_exact_upper(n - k, n, tail), near_exact_upper(k, n, tail)
    return Interval(min(found.low, low), max(found.high, high), "wilson and near-exact")


def known_spread(p: float, size: float, few: float = 0.75) -> bool:
    """Whether so many answers with the mean `p` show how far they spread: where less than `few` whole answers' worth is
    away from an end of the range, the rare one that is has not been seen, and their number counts alone.
    """
    return size * min(p, 1 - p) >= few


def _by_cluster(values: Any, clusters: Sequence[Hashable | None]) -> tuple[Any, Any]:
    """Sums and counts per cluster, float64 and int64 arrays of shape (clusters,), in order of first appearance."""
    import numpy as np

    index: dict[Hashable, int] = {}
    rows = [index.setdefault((0, i) if c is None else (1, c), len(index)) for i, c in enumerate(clusters)]
    codes = np.asarray(rows, dtype=np.int64)
    return np.bincount(codes, weights=values, minlength=len(index)), np.bincount(codes, minlength=len(index))


def _checked(values: Sequence[float], clusters: Sequence[Hashable | None] | None) -> tuple[Any, Any, Any]:
    """(values, cluster sums, cluster counts) as arrays; refuses empty, unequal or non-finite input."""
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError("an interval needs one finite value or more")
    if clusters is None:
        return array, array, np.ones(array.size, dtype=np.int64)
    if len(clusters) != array.size:
        raise ValueError(f"{array.size} values but {len(clusters)} clusters")
    return array, *_by_cluster(array, clusters)


def bounded_mean(
    values: Sequence[float], clusters: Sequence[Hashable | None] | None = None, level: float = LEVEL
) -> Interval:
    """Interval of the mean of `values` in [0, 1]: that of a proportion, on the effective sample size.

    Single 0/1 answers: `proportion`. Otherwise the effective size is p (1 - p) / (variance of the mean over clusters),
    with the t quantile of (clusters - 1) degrees of freedom in place of z; of 0/1 answers it is at most n. Where all
    clusters agree, or too few are away from an end to tell (`known_spread`), their number is taken as the size.
    Source: Korn & Graubard 1998, Survey Methodology 24; Dean & Pagano 2015, J. Surv. Stat. Methodol. 3 (Wilson form).
    Simulated with 10 documents of 10 questions it covers 94 to 97 %, a percentile bootstrap 92 to 95 %.
    """
    array, sums, counts = _checked(values, clusters)
    n, k, n_clusters = array.size, float(array.sum()), len(sums)
    if array.min() < 0 or array.max() > 1:
        raise ValueError("a bounded mean needs values in [0, 1]")
    binary = bool(((array == 0) | (array == 1)).all())
    if binary and n_clusters == n:
        return proportion(k, n, level)
    p = min(1.0, k / n)
    if n_clusters == 1:
        return proportion(p, 1.0, level)._replace(method="wilson and near-exact, one cluster")
    variance = n_clusters / (n_clusters - 1) * float(((sums - p * counts) ** 2).sum()) / n**2
    kind = "clustered" if binary else "graded"
    if variance <= 1e-15 or not 0 < p < 1 or not known_spread(p, n_clusters):
        return proportion(p * n_clusters, n_clusters, level)._replace(method=f"wilson and near-exact, {kind}")
    effective = p * (1 - p) / variance
    if binary:
        effective = min(effective, n)
    effective *= (z_quantile(level) / t_quantile(n_clusters - 1, level)) ** 2
    return wilson(p * effective, effective, level)._replace(method=f"wilson, {kind}")


def _resampled_means(sums: Any, counts: Any, seed: int, draws: int) -> Any:
    """Means of `draws` resamples of whole clusters, shape (draws,)."""
    import numpy as np

    generator = np.random.Generator(np.random.PCG64(seed))
    size = len(sums)
    means = np.empty(draws)
    step = max(1, _CHUNK // size)
    for start in range(0, draws, step):
        stop = min(draws, start + step)
        chosen = generator.integers(0, size, size=(stop - start, size))
        means[start:stop] = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    return means


def bootstrap(
    values: Sequence[float],
    clusters: Sequence[Hashable | None] | None = None,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Interval | None:
    """Expanded percentile interval of the mean, resampling whole clusters; None for fewer than two clusters.

    Source: Efron & Tibshirani 1993, chapter 13; expansion for few clusters: Hesterberg 2015, "What Teachers Should Know
    About the Bootstrap", The American Statistician 69 (percentiles Φ(∓ sqrt(g / (g - 1)) t) for g clusters).
    """
    import numpy as np

    array, sums, counts = _checked(values, clusters)
    size = len(sums)
    if size < 2:
        return None
    means = _resampled_means(sums, counts, seed, draws)
    tail = NormalDist().cdf(-math.sqrt(size / (size - 1)) * t_quantile(size - 1, level))
    low, high = np.quantile(means, [tail, 1 - tail])
    mean = float(array.mean())
    return Interval(min(float(low), mean), max(float(high), mean), "bootstrap")


def unbounded_mean(
    values: Sequence[float], clusters: Sequence[Hashable | None] | None = None, *, seed: int = 0
) -> Interval | None:
    """Interval of a mean of values without bounds: `bootstrap`, from `LEAST_UNBOUNDED` clusters on. None below: nothing
    of the values' range is known there, and with few of a skewed kind it covers less than 93 %.
    """
    names = range(len(values)) if clusters is None else [i if c is None else (c,) for i, c in enumerate(clusters)]
    return bootstrap(values, clusters, seed=seed) if len(set(names)) >= LEAST_UNBOUNDED else None


def mean_interval(
    values: Sequence[float],
    clusters: Sequence[Hashable | None] | None = None,
    *,
    bounds: tuple[float, float],
    seed: int = 0,
) -> Interval | None:
    """The interval loom prints for a mean of scores: `bounded_mean` within `bounds`, else `unbounded_mean`."""
    low, high = bounds
    span = high - low
    inside = math.isfinite(span) and span > 0 and all(low <= value <= high for value in values)
    if not inside:
        return unbounded_mean(values, clusters, seed=seed)
    scaled = bounded_mean([min(1.0, (value - low) / span) for value in values], clusters)
    return Interval(low + span * scaled.low, low + span * scaled.high, scaled.method)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p of McNemar's test: `b` pairs only the first got right, `c` only the second.

    Source: McNemar 1947, Psychometrika 12, with the exact binomial null (b ~ Binomial(b + c, 1/2)).
    """
    if b < 0 or c < 0:
        raise ValueError("counts of pairs cannot be negative")
    n, term, total = b + c, 1, 0
    for k in range(min(b, c) + 1):
        total += term
        term = term * (n - k) // (k + 1)
    return min(1.0, (2 * total) / (1 << n))


def sign_flip(
    differences: Sequence[float],
    clusters: Sequence[Hashable | None] | None = None,
    *,
    seed: int = 0,
    draws: int = 9999,
) -> Tested:
    """Two-sided randomisation test that paired differences have mean zero, flipping the signs of whole clusters.

    Exact for differences of clusters that are multiples of the least (convolution) and for few clusters (enumeration),
    else `draws` seeded flips with the observed one counted. For single 0/1 pairs it *is* the exact McNemar test.
    Source: Fisher 1935, "The Design of Experiments", section 21; Phipson & Smyth 2010 (p is never zero).
    """
    import numpy as np

    _, sums, _ = _checked(differences, clusters)
    scale = float(np.abs(sums).max())
    sums = sums[np.abs(sums) > 1e-12 * max(1.0, scale)]
    if sums.size == 0:
        return Tested(1.0, "sign flip, exact")
    # Differences that weigh alike are whole numbers of the least of them: the test is then exact.
    sums = sums / float(np.abs(sums).min())
    observed = abs(float(sums.sum()))
    if np.abs(sums - np.rint(sums)).max() < 1e-9 and np.abs(sums).sum() < 50_000:
        return Tested(_flips_of_integers(np.rint(np.abs(sums)).astype(int), round(observed)), "sign flip, exact")
    edge = observed - 1e-9 * max(1.0, observed)
    if sums.size <= 14:
        signs = (np.arange(1 << sums.size)[:, None] >> np.arange(sums.size) & 1) * 2 - 1
        return Tested(float((np.abs(signs @ sums) >= edge).mean()), "sign flip, exact")
    generator = np.random.Generator(np.random.PCG64(seed))
    hits, step = 0, max(1, _CHUNK // sums.size)
    for start in range(0, draws, step):
        signs = generator.integers(0, 2, size=(min(step, draws - start), sums.size)) * 2 - 1
        hits += int((np.abs(signs @ sums) >= edge).sum())
    return Tested((hits + 1) / (draws + 1), f"sign flip, {draws} draws")


def _flips_of_integers(sizes: Any, observed: int) -> float:
    """P(|Σ ± size| ≥ observed) with fair signs, by exact convolution."""
    import numpy as np

    total = int(sizes.sum())
    density = np.zeros(2 * total + 1)
    density[total] = 1.0
    for size in sizes:
        moved = np.zeros_like(density)
        moved[size:] += density[: density.size - size] / 2
        moved[: moved.size - size] += density[size:] / 2
        density = moved
    return min(1.0, float(density[: total - observed + 1].sum() + density[total + max(observed, 1) :].sum()))


def paired_binary_interval(b: int, c: int, n: int, level: float = LEVEL) -> Interval:
    """Interval of (b - c) / n: the difference of two proportions over `n` pairs with b and c discordant ones.

    Source: Bonett & Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", J. Educ. Behav. Stat. 37. It has width where no pair differs, as a bootstrap has not.
    """
    if n <= 0 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"{b} and {c} discordant pairs of {n}")
    first, second = (b + 1) / (n + 2), (c + 1) / (n + 2)
    half = z_quantile(level) * math.sqrt(max(0.0, (first + second - (first - second) ** 2) / (n + 2)))
    raw, centre = (b - c) / n, first - second
    return Interval(max(-1.0, min(centre - half, raw)), min(1.0, max(centre + half, raw)), "bonett-price")


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable | None] | None = None,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Interval | None:
    """Interval of mean(first - second) over pairs, resampling whole clusters of pairs; None below two clusters.

    Source: Efron & Tibshirani 1993, chapter 8 (paired data are resampled as pairs); expanded as in `bootstrap`.
    """
    if len(first) != len(second):
        raise ValueError("pairs need equally many values on both sides")
    differences = [a - b for a, b in zip(first, second, strict=True)]
    return bootstrap(differences, clusters, seed=seed, draws=draws, level=level)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values that hold the family-wise error rate, in the order given.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6.
    """
    n, highest = len(p_values), 0.0
    adjusted = [0.0] * n
    for rank, i in enumerate(sorted(range(n), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (n - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _binomial(n: int, p: float) -> Any:
    """The probabilities of 0 … n successes, shape (n + 1,)."""
    import numpy as np

    if p <= 0 or p >= 1:
        density = np.zeros(n + 1)
        density[n if p >= 1 else 0] = 1.0
        return density
    k = np.arange(n + 1)
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))
    density = np.exp(logs[n] - logs - logs[::-1] + k * math.log(p) + (n - k) * math.log1p(-p))
    return density / density.sum()


def mcnemar_power(n: int, p_loss: float, p_gain: float, alpha: float = 0.05) -> float:
    """Chance that exact McNemar on `n` pairs is significant where a pair is lost with p_loss and gained with p_gain.

    Exact sum over the number of discordant pairs; work grows with n · (p_loss + p_gain) squared.
    """
    import numpy as np

    discordant = p_loss + p_gain
    if n <= 0 or discordant <= 0:
        return 0.0
    if discordant > 1:
        raise ValueError("p_loss + p_gain is at most 1")
    power = 0.0
    for m, weight in enumerate(_binomial(n, discordant)):
        if weight < 1e-12:
            continue
        tails = np.cumsum(_binomial(m, 0.5))
        reach = int(np.searchsorted(2 * tails, alpha * (1 + 1e-12), side="right"))
        if reach > 0:
            losses = _binomial(m, p_loss / discordant)
            power += weight * float(losses[:reach].sum() + losses[m - reach + 1 :].sum())
    return min(1.0, power)


def detectable_loss(n: int, p_gain: float = 0.0, *, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """The smallest true share of lost pairs that `n` pairs find with the given power; None where none can.

    p_gain: share of pairs that a method gets right by chance where the baseline does not (0 is the best case).
    """
    high = 1.0 - p_gain
    if n <= 0 or mcnemar_power(n, high, p_gain, alpha) < power:
        return None
    low = 0.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if mcnemar_power(n, middle, p_gain, alpha) >= power else (middle, high)
    return high


class EffectiveLength(NamedTuple):
    """Where a score holds.

    level: index of the longest level that holds. at_least: none longer was measured. gap: a shorter one fails.
    """

    level: int
    at_least: bool
    gap: bool


def effective_length(
    scores: Sequence[float | None], share: float = 0.85, reference: float | None = None
) -> EffectiveLength | None:
    """The longest level (scores from short to long) that keeps `share` of `reference`: of the first score without one.

    None where no level does, or where the reference is missing, 0 or less. Source: the share is loom's own definition,
    after the "effective length" of Hsieh et al. 2024 (RULER), whose threshold is a fixed score.
    """
    if reference is None:
        reference = scores[0] if scores else None
    if reference is None or reference <= 0:
        return None
    wanted = share * reference * (1 - 1e-12)
    holds = [score is not None and score >= wanted for score in scores]
    if not any(holds):
        return None
    longest = max(i for i, held in enumerate(holds) if held)
    measured = max(i for i, score in enumerate(scores) if score is not None)
    return EffectiveLength(longest, longest == measured, not all(holds[: longest + 1]))
