"""Resampling graded rows by clusters, within what a benchmark's design fixes. Knows rows; knows no table and no run.

Source: Efron & Tibshirani 1993, chapters 6, 8 and 13 (bootstrap of a statistic of stratified, paired data); Hesterberg
2015, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (few clusters).
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

from loom_report.statistics import stats

from loom_core.contract.protocols import Graded
from loom_core.contract.types import Json, Sample

PERCENTILES_FROM = 400


@dataclass
class Cluster:
    """Rows that are drawn together: of one document, or scored as one group. copies: renamed for repeated draws."""

    rows: list[Graded]
    copies: list[list[Graded]] = field(default_factory=list)

    def copy(self, number: int) -> list[Graded]:
        """The rows under names of their own, so that an aggregation that counts by name or group sees another one."""
        if number == 0:
            return self.rows
        while len(self.copies) < number:
            mark = f"#{len(self.copies) + 2}"
            self.copies.append([replace(row, sample=_renamed(row, mark)) for row in self.rows])
        return self.copies[number - 1]


def _renamed(row: Graded, mark: str) -> Sample:
    sample = row.sample
    group = sample.group + mark if sample.group is not None else None
    cluster = sample.cluster + mark if sample.cluster is not None else None
    return replace(sample, id=sample.id + mark, group=group, cluster=cluster)


def strata_of(rows: Sequence[Graded]) -> list[list[Cluster]]:
    """Clusters by what the design fixes: task and length level, or task alone where a level holds a single cluster."""
    clusters = list(_clusters(rows))
    for key in (_task_and_level, _task):
        strata: dict[Hashable, list[Cluster]] = {}
        for cluster in clusters:
            strata.setdefault(key(cluster), []).append(cluster)
        if all(len(group) > 1 for group in strata.values()):
            break
    return list(strata.values())


def _task_and_level(cluster: Cluster) -> Hashable:
    return frozenset((row.task, row.sample.level) for row in cluster.rows)


def _task(cluster: Cluster) -> Hashable:
    return frozenset(row.task for row in cluster.rows)


def _clusters(rows: Sequence[Graded]) -> Iterator[Cluster]:
    """Rows joined by question, document and group (within a task): what shares any of them is one cluster."""
    parent: dict[Hashable, Hashable] = {}

    def root(name: Hashable) -> Hashable:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for row in rows:
        for name in list(_names(row))[1:]:
            parent[root(name)] = root(_names(row)[0])
    found: dict[Hashable, Cluster] = {}
    for row in rows:
        found.setdefault(root(_names(row)[0]), Cluster([])).rows.append(row)
    yield from found.values()


def _names(row: Graded) -> list[Hashable]:
    sample = row.sample
    more = [(kind, name) for kind, name in (("document", sample.cluster), ("group", sample.group)) if name is not None]
    return [(row.task, "question", sample.id), *((row.task, *name) for name in more)]


def resample(strata: Sequence[Sequence[Cluster]], generator: random.Random) -> Iterator[tuple[int, int, int]]:
    """(stratum, cluster, number of its copy) of one draw: as many clusters of each stratum as there are."""
    for i, stratum in enumerate(strata):
        counts: dict[int, int] = {}
        for chosen in generator.choices(range(len(stratum)), k=len(stratum)):
            copy = counts[chosen] = counts.get(chosen, -1) + 1
            yield i, chosen, copy


def rows_of(strata: Sequence[Sequence[Cluster]], draw: Sequence[tuple[int, int, int]]) -> list[Graded]:
    """The rows of a draw."""
    return [row for i, chosen, copy in draw for row in strata[i][chosen].copy(copy)]


@dataclass
class Draws:
    """The values of a line over resamples. asked: how many draws there were; some may have given no value. reason: why
    there were none.
    """

    asked: int = 0
    reason: str = ""
    values: list[float] = field(default_factory=list)

    def interval(self, value: float | None, strata: Sequence[Sequence[Cluster]]) -> dict[str, Json]:
        """`low`, `high` and `interval`; the ends are None, with the reason, where resampling cannot tell."""
        none: dict[str, Json] = {"low": None, "high": None}
        n_clusters = sum(map(len, strata))
        df = n_clusters - len(strata)
        if value is None or not self.asked:
            return none | {"interval": self.reason if value is not None and self.reason else None}
        if any(len(stratum) < 2 for stratum in strata):
            return none | {"interval": "none: a task has a single document or group"}
        if len(self.values) < 0.9 * self.asked:
            return none | {"interval": f"none: {self.asked - len(self.values)} of {self.asked} resamples have no value"}
        if max(self.values) - min(self.values) < 1e-12:
            return none | {"interval": "none: resamples do not vary"}
        # Few clusters a stratum resample too narrowly, by (g - 1) / g of the variance: see the source above.
        wide = math.sqrt(n_clusters / df) * stats.t_quantile(df)
        low, high = self._ends(value, wide)
        method = f"bootstrap through the aggregation, {self.asked} draws"
        return {"low": min(low, value), "high": max(high, value), "interval": method}

    def _ends(self, value: float, wide: float) -> tuple[float, float]:
        import numpy as np

        if len(self.values) < PERCENTILES_FROM:
            half = wide * float(np.std(self.values, ddof=1))
            return value - half, value + half
        tail = NormalDist().cdf(-wide)
        low, high = np.quantile(self.values, [tail, 1 - tail])
        return float(low), float(high)
