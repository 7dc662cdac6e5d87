"""How often loom's 95 % intervals hold the truth, simulated (or, for single 0/1 answers, summed exactly). Prints JSON.

`perf/coverage.json` is what this printed; docs/statistics.md has its figures and tests hold the two in step. Tables
over strata are drawn many at once: membership is worked out for all draws with scipy's functions, and the intervals
that loom prints are made for some of them, which must say the same.

    python perf/coverage.py [--draws 2000] [--only strata]

Needs scipy. Seeded: the same figures on every machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from loom_report import cells, weighting
from loom_report.statistics import quantiles, stats, strata
from loom_report.statistics.strata import Weighed
from scipy.special import betainc  # type: ignore[import-untyped]
from scipy.stats import binom  # type: ignore[import-untyped]

DRAWS = 2000
CHECKED = 5
ANSWERS = (1, 2, 3, 5, 10, 20)
STRATA = (5, 13, 20)
RATES: dict[str, Callable[[int], Any]] = {
    "equal 0.5": lambda s: np.full(s, 0.5),
    "equal 0.7": lambda s: np.full(s, 0.7),
    "equal 0.9": lambda s: np.full(s, 0.9),
    "equal 0.99": lambda s: np.full(s, 0.99),
    "mixed": lambda s: np.linspace(0.5, 1, s),
    "few wrong": lambda s: np.where(np.arange(s) < max(1, s // 6), 0.5, 1.0),
    "all right": lambda s: np.full(s, 1.0),
}
LOSSES = ((0.0, 0.0), (0.05, 0.05), (0.1, 0.0), (0.3, 0.1), (0.5, 0.2))
Metric01 = cells.Metric("em", "1", 0.0, 1.0, True, True, True, None)
Row: TypeAlias = tuple[str, float]


class Moments(NamedTuple):
    """`strata.Moments` of many tables at once, arrays of shape (draws,)."""

    mean: Any
    variance: Any
    common: Any
    size: float
    factor: Any
    binary: Any
    n_apart: Any


def moments(x: Any, worst: float = 0.0) -> Moments:
    """Of tables (draws, strata, clusters, answers of a cluster) whose answers weigh alike."""
    _, n_strata, n, _ = x.shape
    n_all = n_strata * n
    units, inner = x.mean(3), x.mean((2, 3))
    mean = inner.mean(1)
    around = ((units - mean[:, None, None]) ** 2).sum((1, 2)) / n_all**2
    within = ((units - inner[:, :, None]) ** 2).sum((1, 2)) / n_all**2 * n / max(1, n - 1)
    trust = n / (n + strata.PRIOR) if n > 1 else 0.0
    binary = np.isin(x, (worst, 0.0, 1.0)).all((1, 2, 3))
    yes, no = (strata._factor(trust, n_strata * (n - 1), n_all, kind) for kind in (True, False))
    apart = (np.abs(x) > 1e-12).any(3).sum((1, 2))
    variance = trust * within + (1 - trust) * around
    return Moments(mean, variance, around, float(n_all), np.where(binary, yes, no), binary, apart)


def rows(table: Any) -> list[Weighed]:
    """One table (strata, clusters, answers of a cluster) as loom has it."""
    n_strata, n, each = table.shape
    share = 1 / table.size
    places = ((s, i, j) for s in range(n_strata) for i in range(n) for j in range(each))
    return [Weighed(float(table[s, i, j]), share, (s, i), s) for s, i, j in places]


def in_proportion(truth: float, k: Any, n: Any) -> Any:
    """Whether `stats.proportion(k, n)` holds the truth, for arrays; without finding its ends."""
    p, z, tail = k / n, quantiles.z_quantile(), (1 - stats.LEVEL) / 2
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    above = (truth <= np.where(k >= n, 1.0, centre + half) + 1e-9) | (_exceeds(truth, k, n) >= tail)
    below = (truth >= np.where(k <= 0, 0.0, centre - half) - 1e-9) | (_exceeds(1 - truth, n - k, n) >= tail)
    return above & below


def _exceeds(p: float, k: Any, n: Any) -> Any:
    """P(X < k) + `quantiles.COUNTED` · P(X = k) at p; 1 where k = n, whose limit is 1."""
    rest, part = n - k, quantiles.COUNTED
    some = np.where(k > 1e-12, betainc(np.maximum(k, 1e-12), rest + 1, p), 1.0)
    more = betainc(k + 1, np.maximum(rest, 1e-12), p)
    return np.where(rest <= 1e-9, 1.0, 1 - (1 - part) * some - part * more)


def means_hold(x: Any, truth: float) -> Any:
    """Whether `strata.mean_interval` holds the truth, for each table of x."""
    found = moments(x)
    p, size = np.clip(found.mean, 0, 1), found.size
    inside = (found.common > 1e-15) & (p > 0) & (p < 1)
    known = found.binary | (size * np.minimum(p, 1 - p) >= strata.FEW)
    effective = p * (1 - p) / np.maximum(found.variance, 1e-12) / found.factor**2
    sizes = np.where(inside & known, effective, size)
    held = in_proportion(truth, p * sizes, sizes)
    for i in range(CHECKED):
        interval = strata.mean_interval(strata.moments(rows(x[i])))
        if (interval.low - 1e-9 <= truth <= interval.high + 1e-9) != held[i]:
            raise AssertionError(f"the simulation and loom differ: {interval} {truth} {held[i]}")
    return held


def differences_hold(x: Any, truth: float) -> Any:
    """Whether `strata.difference_interval`, made to agree with its test, holds the truth, for each table of x."""
    found = moments(x, worst=-1.0)
    n_clusters = x.shape[1] * x.shape[2]
    some = strata.tells_spread(found.n_apart, n_clusters) & (found.variance > 1e-15) & ~found.binary
    added, size = np.where(some, 0.0, 2.0), found.size
    centre = found.mean * size / (size + added)
    square = (size * (size * found.variance + found.mean**2) + added) / (size + added)
    error = np.sqrt(np.maximum(0, square - centre**2) / (size + added)) * found.factor
    half = quantiles.z_quantile() * error
    low = np.maximum(-1, np.minimum(centre - half, found.mean))
    high = np.minimum(1, np.maximum(centre + half, found.mean))
    held = (low - 1e-9 <= truth) & (truth <= high + 1e-9)
    # The test only widens: what holds the truth without it holds it with it.
    missed = np.flatnonzero(~held & ((low > 0) & (truth < low) | (high < 0) & (truth > high)))
    for i in [*missed.tolist(), *range(CHECKED)]:
        given = rows(x[i])
        compared = strata.difference_interval(strata.moments(given, worst=-1.0))
        interval, _ = strata.agreed(compared, strata.weighted_flips(given, 0))
        now = bool(interval.low - 1e-9 <= truth <= interval.high + 1e-9)
        if held[i] and not now:
            raise AssertionError(f"the simulation and loom differ: {interval} {truth}")
        held[i] = now
    return held


# --- what is drawn ---------------------------------------------------------------------------------------------------


def answers(kind: str, p: Any, shape: tuple[int, int, int], generator: Any) -> Any:
    """Scores of mean p (strata,) of a kind, shape (draws, strata, clusters, answers of a cluster)."""
    draws, n_strata, n = shape
    each = 5 if kind.startswith("documents") else 1
    u, mean = generator.random((draws, n_strata, n, each)), p[None, :, None, None]
    half = np.minimum(mean, 1 - mean) / 2
    if kind == "graded":
        return np.where(u < mean - half, 1.0, np.where(u < mean + half, 0.5, 0.0))
    if kind == "documents":
        # Half of the documents are easier, half harder: an intraclass correlation of 0.25 at p = 0.5.
        side = np.where(generator.random((draws, n_strata, n, 1)) < 0.5, half, -half)
        return (u < mean + side).astype(float)
    return (u < mean).astype(float)


def differences(kind: str, loss: float, gain: float, shape: tuple[int, int, int], generator: Any) -> tuple[Any, float]:
    """Differences of pairs of a kind, and their true mean."""
    draws, n_strata, n = shape
    each = 5 if kind == "documents" else 1
    u = generator.random((draws, n_strata, n, each))
    if kind == "documents":
        # A document loses twice as often as another, or never.
        side = 2.0 * (generator.random((draws, n_strata, n, 1)) < 0.5)
        lost, gained = u < loss * side, (u >= loss * side) & (u < (loss + gain) * side)
    else:
        lost, gained = u < loss, (u >= loss) & (u < loss + gain)
    x = gained.astype(float) - lost
    if kind != "graded":
        return x, gain - loss
    # By how much: a quarter, a half or all of the range.
    return x * generator.choice([0.25, 0.5, 1.0], size=u.shape), (gain - loss) * 1.75 / 3


# --- families --------------------------------------------------------------------------------------------------------


def single(_: int) -> Iterator[Row]:
    """Single 0/1 answers, exactly: coverage at 999 values of p."""
    grid = np.linspace(0.001, 0.999, 999)
    for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 50, 100):
        k = np.arange(n + 1)
        ends = [stats.proportion(float(one), float(n)) for one in k]
        low, high = (np.asarray([end[i] for end in ends]) for i in (0, 1))
        inside = (low[None] <= grid[:, None]) & (grid[:, None] <= high[None])
        held = (binom.pmf(k[None], n, grid[:, None]) * inside).sum(1)
        yield f"n={n}, least", float(held.min())
        yield f"n={n}, mean", float(held.mean())


def pairs(_: int) -> Iterator[Row]:
    """Differences of single 0/1 pairs, exactly: over all counts of pairs won and lost."""
    for n in (5, 10, 20, 50):
        for loss, gain in ((0.02, 0.02), (0.05, 0.05), (0.1, 0.0), (0.2, 0.2), (0.3, 0.1), (0.5, 0.2)):
            held = 0.0
            for b in range(n + 1):
                at = binom.pmf(b, n, gain)
                for c in range(n + 1 - b):
                    chance = at * binom.pmf(c, n - b, loss / (1 - gain))
                    if chance > 1e-9:
                        low, high = _pair_ends(b, c, n)
                        held += chance * (low - 1e-9 <= gain - loss <= high + 1e-9)
            yield f"n={n}, loss {loss:g}, gain {gain:g}", float(held)


@cache
def _pair_ends(b: int, c: int, n: int) -> tuple[float, float]:
    made = [(i, float(i < b), float(b <= i < b + c)) for i in range(n)]
    found = cells.difference(Metric01, made, "coverage")
    return found["low"], found["high"]


def over_strata(draws: int, kinds: tuple[str, ...], least: int = 1) -> Iterator[Row]:
    """Means over strata of n answers (or documents of five questions) each."""
    for kind in kinds:
        for n_strata in STRATA:
            for n in (n for n in ANSWERS if n >= least):
                for name, rates in RATES.items():
                    generator, p = np.random.default_rng([n_strata, n, len(name)]), rates(n_strata)
                    x = answers(kind, p, (draws, n_strata, n), generator)
                    yield f"{kind}, {n_strata} strata of {n}, {name}", float(means_hold(x, float(p.mean())).mean())


def paired_strata(draws: int, kinds: tuple[str, ...]) -> Iterator[Row]:
    """Differences over strata."""
    for kind in kinds:
        for n_strata in (1, 5, 13):
            for n in (2, 5, 10, 20):
                if n_strata == 1 and (n < 5 or kind == "0/1"):
                    continue
                for loss, gain in LOSSES:
                    if kind == "documents" and loss + gain > 0.5:
                        continue
                    generator = np.random.default_rng([n_strata, n, round(100 * loss), 7])
                    x, truth = differences(kind, loss, gain, (draws, n_strata, n), generator)
                    name = f"{kind}, {n_strata} strata of {n}, loss {loss:g}, gain {gain:g}"
                    yield name, float(differences_hold(x, truth).mean())


def cells_of_documents(draws: int) -> Iterator[Row]:
    """A single cell: documents of 10 questions, and graded single answers."""
    for kind, n, rate in ((k, n, r) for k in ("documents", "graded") for n in (5, 10, 20, 50) for r in (0.5, 0.7, 0.9)):
        generator = np.random.default_rng([n, round(100 * rate), len(kind)])
        x = answers(kind, np.full(1, rate), (draws, 1, n), generator)[:, 0]
        names = [i for i in range(n) for _ in range(x.shape[2])]
        held = 0
        for table in x:
            found = stats.mean_interval(table.ravel().tolist(), names, bounds=(0.0, 1.0))
            held += found is not None and found.low - 1e-9 <= rate <= found.high + 1e-9
        yield f"{kind}, n={n}, p={rate:g}", held / draws


def unbounded(draws: int) -> Iterator[Row]:
    """Means of scores without bounds: normal, and skewed (exponential)."""
    for kind in ("normal", "exponential"):
        for n in (5, 30, 50):
            generator = np.random.default_rng([n, len(kind)])
            x = generator.normal(1, 1, (draws, n)) if kind == "normal" else generator.exponential(1, (draws, n))
            held = none = 0
            for seed, values in enumerate(x):
                found = stats.mean_interval(values.tolist(), bounds=(0.0, float("inf")), seed=seed)
                none += found is None
                held += found is not None and found.low <= 1 <= found.high
            if none < draws:
                yield f"{kind}, n={n}", held / (draws - none)


def weighted(draws: int) -> Iterator[Row]:
    """Totals of levels that were asked to unequal extents (`--budget`, `--until`), by their planned weights."""
    shares = (0.2, 0.3, 0.5)
    for ns in ((16, 16, 16), (16, 40, 80), (80, 40, 16)):
        for rates in ((0.5, 0.5, 0.5), (0.95, 0.8, 0.3), (0.99, 0.95, 0.9)):
            generator = np.random.default_rng([*ns, *(round(100 * p) for p in rates)])
            truth, held = sum(w * p for w, p in zip(shares, rates, strict=True)), 0
            for counts in generator.binomial(ns, rates, (draws, 3)):
                parts = [(w, _level(int(k), n)) for w, k, n in zip(shares, counts, ns, strict=True)]
                found = weighting.combined(parts, "score")
                held += found["low"] <= truth <= found["high"]
            yield f"n={ns}, p={rates}", held / draws


@cache
def _level(k: int, n: int) -> dict[str, float]:
    found = stats.proportion(float(k), float(n))
    return {"score": k / n, "low": found.low, "high": found.high}


FAMILIES: dict[str, Callable[[int], Iterator[Row]]] = {
    "single": single,
    "cells": cells_of_documents,
    "strata": lambda draws: over_strata(draws, ("0/1",)),
    "graded strata": lambda draws: over_strata(draws, ("graded",)),
    "strata of documents": lambda draws: over_strata(draws, ("documents",), least=2),
    "unbounded": unbounded,
    "pairs": pairs,
    "paired strata": lambda draws: paired_strata(draws, ("0/1", "graded", "documents")),
    "weighted": weighted,
}


def main() -> None:
    """Print the coverage of every case by family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--only", default=",".join(FAMILIES))
    asked = parser.parse_args()
    found = {name: dict(FAMILIES[name](asked.draws)) for name in asked.only.split(",")}
    rounded = {name: {case: round(value, 4) for case, value in cases.items()} for name, cases in found.items()}
    print(json.dumps({"draws": asked.draws, "coverage": rounded}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
