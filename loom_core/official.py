"""The benchmark authors' own tables with intervals: whole clusters are resampled and put through `Benchmark.aggregate`.

So a macro average, a mean over pairs or a harmonic mean gets the interval of that very number. A line that is found to
be the plain mean of a task keeps its closed form. Knows graded rows; reads and writes no file.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from loom_core import cells, stats
from loom_core.contracts import Benchmark, Graded, Line
from loom_core.keys import plain, seed_of
from loom_core.resample import Cluster, Draws, resample, rows_of, strata_of
from loom_core.selection import Chosen, Selection
from loom_core.types import Json, Task

DRAWS = 1000
LEAST_DRAWS = 100
MOST_WORK = 3_000_000
SWAPS = 9_999
ENOUGH_HITS = 20
PROBES = 8

Spot: TypeAlias = tuple[str, str, int]
LineName: TypeAlias = tuple[str, str]


class Mean(NamedTuple):
    """A line that is `scale` times the plain mean of a metric over the rows of a task; task None: of the only one."""

    metric: str
    task: str | None
    scale: float


def tables(selection: Selection, rows: Mapping[tuple[str, str], Sequence[Graded]]) -> Json:
    """The official tables by benchmark and arm; a benchmark whose table cannot be made says why."""
    found: dict[str, dict[str, Json]] = {}
    for chosen in selection.chosen:
        by_arm = {arm: graded for (name, arm), graded in rows.items() if name == chosen.name}
        metrics = {name: _metric(selection, task, name) for task in chosen.tasks for name in task.metrics}
        for arm, graded in by_arm.items():
            base = by_arm.get(cells.BASELINE) if arm != cells.BASELINE else None
            place = f"{chosen.name} {arm}"
            try:
                lines: Json = _labelled(chosen, table(chosen.benchmark, graded, base, metrics, place))
            except Exception as error:  # noqa: BLE001 - a plugin's table may fail; the scores stand without it
                lines = {"error": f"{type(error).__name__}: {error}"}
            found.setdefault(chosen.name, {})[arm] = lines
    for by_arm in found.values():
        known = [line for lines in by_arm.values() if isinstance(lines, list) for line in lines]
        cells.adjust([line["delta"] for line in known if line["delta"]])
    return found


def _labelled(chosen: Chosen, lines: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """The lines, each saying which tasks were asked with a user's own prompt: no such line is the authors' number."""
    own = [task.name for task in chosen.tasks if chosen.template(task)]
    if own:
        for line in lines:
            note = f"own prompt: {', '.join(own)}"
            line["note"] = f"{line['note']}; {note}" if line.get("note") else note
    return lines


def _metric(selection: Selection, task: Task, name: str) -> cells.Metric:
    """A metric as statistics need it; whether its values are 0/1 is seen from them."""
    spec = next(found.spec for found in selection.metric_specs(task) if found.spec.name == name)
    return cells.Metric(name, spec.version, spec.low, spec.high, spec.higher_is_better, True, False, None)


def table(
    benchmark: Benchmark,
    rows: Sequence[Graded],
    base: Sequence[Graded] | None,
    metrics: Mapping[str, cells.Metric],
    place: str,
) -> list[dict[str, Json]]:
    """Each line of an arm's table as JSON, with `low`, `high` and `interval` (how it was found), and `delta` to the
    baseline's rows. place: names the table; draws are seeded from it.
    """
    lines = list(benchmark.aggregate(rows))
    pairs = Paired(rows, base) if base is not None else None
    strata = strata_of(rows)
    means = _means(benchmark, rows, strata, lines, place)
    paired_lines = _paired_lines(benchmark, pairs)
    drawn = _draw(benchmark, rows, strata, lines, means, place)
    deltas = _draw_deltas(benchmark, pairs, paired_lines, means, place)
    swapped = _swap(benchmark, pairs, {name: v for name, v in paired_lines.items() if name not in means}, place)
    found = []
    for line in lines:
        name = (line.name, line.metric)
        record: dict[str, Json] = plain(line)
        record["value"] = _number(line.value)
        mean = means.get(name)
        if mean is not None and mean.metric in metrics:
            record |= _closed_interval(mean, rows, metrics[mean.metric], place)
            record["delta"] = _closed_delta(mean, pairs, metrics[mean.metric], place)
        else:
            record |= drawn[name].interval(record["value"], strata)
            record["delta"] = _drawn_delta(name, pairs, paired_lines, deltas)
            if record["delta"] is not None:
                record["delta"] |= {"p": swapped[name].p, "test": swapped[name].method}
        found.append(record)
    return found


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


# --- plain means -----------------------------------------------------------------------------------------------------


def _means(
    benchmark: Benchmark, rows: Sequence[Graded], strata: Sequence[Sequence[Cluster]], lines: Sequence[Line], place: str
) -> dict[LineName, Mean]:
    """The lines that are plain means. A line counts as one only where it is `scale` times the mean, to the digits the
    authors print, of these rows and of several resamples of them.
    """
    generator = random.Random(seed_of(f"{place} probes"))
    probes = [list(rows)] + [rows_of(strata, list(resample(strata, generator))) for _ in range(PROBES)]
    given = [{(line.name, line.metric): line for line in benchmark.aggregate(probe)} for probe in probes]
    one_task = len({row.task for row in rows}) == 1
    found = {}
    for line in lines:
        name = (line.name, line.metric)
        if line.value is None or any(name not in each for each in given):
            continue
        for task in (line.name, *([None] if one_task else [])):
            means = [_mean_of(probe, line.metric, task) for probe in probes]
            scale = _scale([(mean, each[name].value) for mean, each in zip(means, given, strict=True)], line.digits)
            if scale is not None and not any(means):
                # Any multiple of 0 is 0: what the line makes of ones tells its scale.
                ones = {(one.name, one.metric): one.value for one in benchmark.aggregate(_ones(rows))}
                scale = _scale([(1.0, ones.get(name))], line.digits)
            if scale is not None:
                found[name] = Mean(line.metric, task, scale)
                break
    return found


def _ones(rows: Sequence[Graded]) -> list[Graded]:
    """The rows with 1 for every value they have."""
    return [
        replace(
            row,
            scored={
                name: scored if scored.value is None else replace(scored, value=1.0)
                for name, scored in row.scored.items()
            },
        )
        for row in rows
    ]


def _mean_of(rows: Sequence[Graded], metric: str, task: str | None) -> float | None:
    values = list(_values(rows, metric, task))
    return sum(value for _, value in values) / len(values) if values else None


def _values(rows: Sequence[Graded], metric: str, task: str | None) -> Iterator[tuple[Graded, float]]:
    """The rows that have a value of the metric."""
    for row in rows:
        scored = row.scored.get(metric) if task is None or row.task == task else None
        if scored is not None and scored.value is not None:
            yield row, scored.value


def _scale(pairs: Sequence[tuple[float | None, float | None]], digits: int) -> float | None:
    """1 or 100 where every line value is that many times the mean; None for other lines."""
    for scale in (1.0, 100.0):
        rounding = 0.51 * 10.0**-digits if scale == 100.0 else 0.51 * 10.0 ** -max(digits, 4)
        if all(
            mean is not None and value is not None and abs(scale * mean - value) <= rounding for mean, value in pairs
        ):
            return scale
    return None


def _as_seen(metric: cells.Metric, values: Sequence[float]) -> cells.Metric:
    finite = math.isfinite(metric.high - metric.low)
    return replace(metric, binary=finite and all(value in (metric.low, metric.high) for value in values))


def _cluster_of(row: Graded) -> Hashable:
    sample = row.sample
    joint = sample.group if sample.group is not None else sample.cluster
    return (row.task, sample.id if joint is None else ("joint", joint))


def _closed_interval(mean: Mean, rows: Sequence[Graded], metric: cells.Metric, place: str) -> dict[str, Json]:
    values = list(_values(rows, mean.metric, mean.task))
    found = stats.mean_interval(
        [value for _, value in values],
        [_cluster_of(row) for row, _ in values],
        bounds=(metric.low, metric.high),
        seed=seed_of(f"{place} {mean}"),
    )
    if found is None:
        return {"low": None, "high": None, "interval": None}
    return {"low": mean.scale * found.low, "high": mean.scale * found.high, "interval": found.method}


def _closed_delta(mean: Mean, pairs: Paired | None, metric: cells.Metric, place: str) -> dict[str, Json] | None:
    if pairs is None:
        return None
    theirs = {_spot(row): value for row, value in _values(pairs.base, mean.metric, mean.task)}
    mine = [(row, value) for row, value in _values(pairs.rows, mean.metric, mean.task) if _spot(row) in theirs]
    if not mine:
        return None
    values = [value for _, value in mine] + [theirs[_spot(row)] for row, _ in mine]
    triples = [(_cluster_of(row), value, theirs[_spot(row)]) for row, value in mine]
    found = cells.difference(_as_seen(metric, values), triples, f"{place} {mean} delta")
    low, high = ((None if found[key] is None else mean.scale * found[key]) for key in ("low", "high"))
    same = {key: found[key] for key in ("interval", "n_pairs", "p", "test")}
    return {"value": mean.scale * found["value"], "low": low, "high": high, **same}


# --- resampled lines -------------------------------------------------------------------------------------------------


def _n_draws(n_rows: int) -> int:
    """How many draws the cap on work allows; the method's name in the file says how many there were."""
    return min(DRAWS, max(LEAST_DRAWS, MOST_WORK // max(1, n_rows)))


def _draw(
    benchmark: Benchmark,
    rows: Sequence[Graded],
    strata: Sequence[Sequence[Cluster]],
    lines: Sequence[Line],
    means: Mapping[LineName, Mean],
    place: str,
) -> dict[LineName, Draws]:
    """Resampled values of the lines that are no plain means; nothing is drawn where all are."""
    open_lines = {name: Draws() for line in lines if (name := (line.name, line.metric)) not in means}
    if not open_lines or any(len(stratum) < 2 for stratum in strata):
        return {name: Draws(asked=int(bool(strata))) for name in open_lines}
    generator, n = random.Random(seed_of(f"{place} draws")), _n_draws(len(rows))
    for _ in range(n):
        given = _by_name(benchmark.aggregate(rows_of(strata, list(resample(strata, generator)))))
        for name, draws in open_lines.items():
            draws.asked += 1
            if (value := given.get(name)) is not None:
                draws.values.append(value)
    return open_lines


def _by_name(lines: Sequence[Line]) -> dict[LineName, float | None]:
    return {(line.name, line.metric): _number(line.value) for line in lines}


def _spot(row: Graded) -> Spot:
    return row.task, row.sample.id, row.repeat


class Paired:
    """The rows of two arms that both answered, in one order. rows: the arm's; base: the baseline's."""

    def __init__(self, rows: Sequence[Graded], base: Sequence[Graded]) -> None:
        theirs = {_spot(row): row for row in base if row.answered}
        self.rows = [row for row in rows if row.answered and _spot(row) in theirs]
        self.base = [theirs[_spot(row)] for row in self.rows]

    def clusters(self) -> list[list[tuple[Cluster, Cluster]]]:
        """Clusters of the arm, each with the baseline's rows of the same questions."""
        theirs = {_spot(row): row for row in self.base}
        return [
            [(cluster, Cluster([theirs[_spot(row)] for row in cluster.rows])) for cluster in stratum]
            for stratum in strata_of(self.rows)
        ]


def _paired_lines(benchmark: Benchmark, pairs: Paired | None) -> dict[LineName, float]:
    """The difference of each line over the rows that both arms answered."""
    if pairs is None or not pairs.rows:
        return {}
    return _differences(benchmark, pairs.rows, pairs.base)


def _differences(benchmark: Benchmark, rows: Sequence[Graded], base: Sequence[Graded]) -> dict[LineName, float]:
    mine, theirs = _by_name(benchmark.aggregate(rows)), _by_name(benchmark.aggregate(base))
    both = ((name, value, theirs.get(name)) for name, value in mine.items())
    return {name: value - other for name, value, other in both if value is not None and other is not None}


def _draw_deltas(
    benchmark: Benchmark,
    pairs: Paired | None,
    lines: Mapping[LineName, float],
    means: Mapping[LineName, Mean],
    place: str,
) -> tuple[dict[LineName, Draws], list[list[Cluster]]]:
    """Resampled differences of the lines that are no plain means: both arms by the same draws."""
    found = {name: Draws() for name in lines if name not in means}
    if pairs is None or not found:
        return found, []
    both = pairs.clusters()
    mine, theirs = ([[pair[side] for pair in stratum] for stratum in both] for side in (0, 1))
    if any(len(stratum) < 2 for stratum in mine):
        return {name: Draws(asked=1) for name in found}, mine
    generator = random.Random(seed_of(f"{place} delta draws"))
    for _ in range(_n_draws(2 * len(pairs.rows))):
        draw = list(resample(mine, generator))
        given = _differences(benchmark, rows_of(mine, draw), rows_of(theirs, draw))
        for name, draws in found.items():
            draws.asked += 1
            if name in given:
                draws.values.append(given[name])
    return found, mine


def _swap(
    benchmark: Benchmark, pairs: Paired | None, lines: Mapping[LineName, float], place: str
) -> dict[LineName, stats.Tested]:
    """The paired randomisation test of each line: arms change names in whole clusters, at random, and both tables are
    made anew. A line that looks like noise is settled after `ENOUGH_HITS` differences as large as its own.

    Source: Fisher 1935, "The Design of Experiments", section 21; Besag & Clifford 1991, "Sequential Monte Carlo
    p-values", Biometrika 78 (ending early); Phipson & Smyth 2010 (p is never zero).
    """
    if pairs is None or not lines:
        return {}
    clusters = [pair for stratum in pairs.clusters() for pair in stratum]
    generator = random.Random(seed_of(f"{place} swaps"))
    most = min(SWAPS, max(LEAST_DRAWS, MOST_WORK // max(1, 2 * len(pairs.rows))))
    hits, found = dict.fromkeys(lines, 0), dict[LineName, stats.Tested]()
    for draw in range(1, most + 1):
        sides: tuple[list[Graded], list[Graded]] = ([], [])
        for mine, theirs in clusters:
            first = generator.random() < 0.5
            sides[first].extend(mine.rows)
            sides[not first].extend(theirs.rows)
        given = _differences(benchmark, *sides)
        for name in lines.keys() - found.keys():
            hits[name] += abs(given.get(name, math.inf)) >= abs(lines[name]) - 1e-9 * max(1.0, abs(lines[name]))
            if hits[name] >= ENOUGH_HITS:
                found[name] = stats.Tested(hits[name] / draw, f"swaps through the aggregation, {draw} draws")
        if len(found) == len(lines):
            return found
    rest = f"swaps through the aggregation, {most} draws"
    return found | {n: stats.Tested((hits[n] + 1) / (most + 1), rest) for n in lines.keys() - found.keys()}


def _drawn_delta(
    name: LineName,
    pairs: Paired | None,
    lines: Mapping[LineName, float],
    drawn: tuple[Mapping[LineName, Draws], Sequence[Sequence[Cluster]]],
) -> dict[str, Json] | None:
    if pairs is None or name not in lines:
        return None
    found, strata = drawn
    return {"value": lines[name], **found[name].interval(lines[name], strata), "n_pairs": len(pairs.rows)}
