"""A seeded subset of a task's samples, fair over its levels. Knows samples; knows no benchmark.

Each stratum (level) gets its share of the whole, by largest remainder, and at least one sample where there are enough;
which ones is drawn from their ids, so that the subset is the same in every process and does not hang on their order.
Samples that are scored together are taken together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

from loom_core.contract.types import Sample

Stratum = dict[str, int]
"""The units of one level, and how many samples each has. A unit is a sample, or a group scored together."""


def shares(sizes: dict[str, int], n: int) -> dict[str, int]:
    """How many of `n` each stratum gets: proportional by largest remainder, ties to the earlier; at least one each
    where `n` allows it, never more than it has."""
    total = sum(sizes.values())
    if n >= total:
        return dict(sizes)
    exact = {name: Fraction(size * n, total) for name, size in sizes.items()}
    given = {name: int(share) for name, share in exact.items()}
    if n >= len(sizes):
        given = {name: max(1, share) for name, share in given.items()}
    order = sorted(exact, key=lambda name: exact[name] - given[name], reverse=True)
    while (left := n - sum(given.values())) != 0:
        step = 1 if left > 0 else -1
        rows = order if left > 0 else order[::-1]
        for name in rows:
            if (given[name] < sizes[name] if step > 0 else given[name] > 1) and sum(given.values()) != n:
                given[name] += step
    return given


def subset(samples: Callable[[], Iterable[Sample]], n: int, seed: int, task: str) -> Iterator[Sample]:
    """About `n` samples of a task: exactly n where none are scored together, else whole groups up to n (at least one a
    level where n allows it).

    samples: called twice, so that no more than one context is in memory; it must give the same samples both times.
    """
    strata: dict[str, Stratum] = {}
    for sample in samples():
        stratum = strata.setdefault(sample.level or "", {})
        unit = _unit(sample)
        stratum[unit] = stratum.get(unit, 0) + 1
    quota = shares({level: sum(units.values()) for level, units in strata.items()}, n)
    taken: set[tuple[str, str]] = set()
    for level, units in strata.items():
        left = quota[level]
        for unit in sorted(units, key=lambda unit: _order(seed, task, unit)):
            if units[unit] <= left or (left == quota[level] > 0):
                taken.add((level, unit))
                left -= units[unit]
            if left <= 0:
                break
    return (sample for sample in samples() if (sample.level or "", _unit(sample)) in taken)


def _unit(sample: Sample) -> str:
    return f"sample {sample.id}" if sample.group is None else f"group {sample.group}"


def _order(seed: int, task: str, unit: str) -> str:
    return hashlib.sha256(f"subset {seed} {task} {unit}".encode()).hexdigest()
