"""The benchmark authors' own tables with intervals. Knows graded rows; reads and writes no file.

What a line is made of is read from the aggregation (`composition`), never from a run's scores. A weighted mean of its
rows gets the interval of that mean over strata (`strata`), a plain mean of one task the closed form of any cell. What
is no mean (a geometric mean, an effective length) is resampled through `Benchmark.aggregate` where each task and level
has enough documents, and has no interval elsewhere.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from loom_core.contract.errors import LoomError
from loom_core.contract.guard import described
from loom_core.contract.keys import plain, seed_of
from loom_core.contract.protocols import Benchmark, Graded, Line
from loom_core.contract.types import Json, Task
from loom_core.run.selection import Chosen, Selection
from loom_report import cells
from loom_report.composition import Composition, LineName, WeighedRow, compositions, metric_of, spot
from loom_report.statistics import stats, strata
from loom_report.statistics.resample import Cluster, Draws, resample, rows_of, strata_of

DRAWS = 1000
LEAST_DRAWS = 100
LEAST_CLUSTERS = 10
"""Documents or groups of each task and level below which a resampled line has no interval: it would be too short."""
MOST_WORK = 3_000_000
SWAPS = 9_999
ENOUGH_HITS = 20
UNBOUNDED = "a mean over tasks or levels of a metric without bounds"


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
            except (LoomError, ArithmeticError, LookupError, TypeError, ValueError) as error:
                # A plugin's table may fail, or hold what statistics cannot use; the scores stand without it.
                lines = {"error": error.what if isinstance(error, LoomError) else described(error)}
            found.setdefault(chosen.name, {})[arm] = lines
    for by_arm in found.values():
        known = [line for lines in by_arm.values() if isinstance(lines, list) for line in lines]
        for headline in (True, False):
            cells.adjust([line["delta"] for line in known if line["delta"] and line["headline"] == headline])
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
    bounds = {name: (metric.low, metric.high) for name, metric in metrics.items()}
    made, others = compositions(benchmark, rows, lines, bounds)
    why = {(line.name, line.metric): UNBOUNDED for line in lines} | others
    means = {name for name, one in made.items() if _is_mean(one, rows, metrics)}
    pairs = Paired(rows, base) if base is not None else None
    paired_lines = _paired_lines(benchmark, pairs)
    paired_made = compositions(benchmark, pairs.rows, lines, bounds)[0] if pairs is not None and pairs.rows else {}
    drawn_rows = strata_of(rows)
    drawn = _draw(benchmark, rows, drawn_rows, {name: one for name, one in why.items() if name not in means}, place)
    deltas = _draw_deltas(benchmark, pairs, {name: why[name] for name in paired_lines if name not in means}, place)
    swapped = _swap(benchmark, pairs, {name: v for name, v in paired_lines.items() if name not in means}, place)
    found = []
    for line in lines:
        name = (line.name, line.metric)
        record: dict[str, Json] = plain(replace(line, rows=None))
        del record["rows"]
        record |= {"value": _number(line.value), "headline": _is_headline(line, made.get(name), rows)}
        if name in means:
            record |= _mean_interval(made[name], rows, metrics, place)
            record["delta"] = _mean_delta(paired_made.get(name), pairs, metrics, place)
        else:
            record |= drawn[name].interval(record["value"], drawn_rows)
            record["delta"] = _drawn_delta(name, pairs, paired_lines, deltas, swapped)
        found.append(record)
    return found


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _is_headline(line: Line, made: Composition | None, rows: Sequence[Graded]) -> bool:
    """Whether a line answers the question that a run asks: one over several tasks, or over all that was asked.

    Lines of a task or of a task at a length are tested as a family of their own.
    """
    counted = [each.row for each in made.rows(rows)] if made is not None else line.rows
    if counted is None:
        return True
    of_all = len(counted) >= sum(any(one.value is not None for one in row.scored.values()) for row in rows)
    return of_all or len({row.task for row in counted}) > 1


# --- weighted means --------------------------------------------------------------------------------------------------


def _is_mean(made: Composition, rows: Sequence[Graded], metrics: Mapping[str, cells.Metric]) -> bool:
    """Whether a line has a closed form: always where its metric has bounds, else where it is a task's plain mean."""
    counted = made.rows(rows)
    if not counted:
        return False
    ends = [metrics.get(metric_of(made.metric, each.row) or "") for each in counted]
    known = [metric for metric in ends if metric is not None]
    inside = all(math.isfinite(metric.high - metric.low) for metric in known) and all(
        -1e-9 <= each.value <= 1 + 1e-9 for each in counted
    )
    return len(known) == len(ends) and (inside or _is_plain(counted))


def _is_plain(counted: Sequence[WeighedRow]) -> bool:
    """Whether all answers are of one task and count alike, as those of any cell or total."""
    weights = [each.weight for each in counted]
    return len({each.row.task for each in counted}) == 1 and max(weights) - min(weights) < 1e-6 * max(weights)


def _weighed(counted: Sequence[WeighedRow], values: Sequence[float]) -> list[strata.Weighed]:
    return [
        strata.Weighed(value, each.weight, _cluster_of(each.row), (each.row.task, each.row.sample.level))
        for each, value in zip(counted, values, strict=True)
    ]


def _cluster_of(row: Graded) -> Hashable:
    sample = row.sample
    joint = sample.group if sample.group is not None else sample.cluster
    return (row.task, sample.id if joint is None else ("joint", joint))


def _mean_interval(
    made: Composition, rows: Sequence[Graded], metrics: Mapping[str, cells.Metric], place: str
) -> dict[str, Json]:
    counted = made.rows(rows)
    metric = metrics[metric_of(made.metric, counted[0].row) or ""]
    values = [each.value for each in counted]
    if _is_plain(counted):
        low, high = metric.low, metric.high
        found = stats.mean_interval(
            values,
            [_cluster_of(each.row) for each in counted],
            bounds=(0.0, 1.0) if math.isfinite(high - low) else (low, high),
            seed=seed_of(f"{place} {made.metric} {counted[0].row.task}"),
        )
    else:
        found = strata.mean_interval(strata.moments(_weighed(counted, values)))
    if found is None:
        return {"low": None, "high": None, "interval": stats.FEW_UNBOUNDED}
    ends = (made.base + made.scale * found.low, made.base + made.scale * found.high)
    return {"low": ends[0], "high": ends[1], "interval": found.method}


def _mean_delta(
    made: Composition | None, pairs: Paired | None, metrics: Mapping[str, cells.Metric], place: str
) -> dict[str, Json] | None:
    """The difference of a weighted mean over the rows that both arms have a value of."""
    if pairs is None or made is None:
        return None
    theirs = {spot(row): made.share(row) or 0.0 for row in pairs.base}
    counted = made.rows(pairs.rows)
    other = [theirs[spot(each.row)] for each in counted]
    differences = [each.value - value for each, value in zip(counted, other, strict=True)]
    if not counted:
        return None
    name = metric_of(made.metric, counted[0].row) or ""
    metric, (low, high) = metrics[name], made.ranges[name]
    if _is_plain(counted):
        seen = _as_seen(metric, [low + (high - low) * value for value in [*(each.value for each in counted), *other]])
        triples = [
            (_cluster_of(each.row), low + (high - low) * each.value, low + (high - low) * value)
            for each, value in zip(counted, other, strict=True)
        ]
        found = cells.difference(seen, triples, f"{place} {made.metric} {counted[0].row.task} delta")
        scale = made.scale / (high - low)
        ends = {key: None if found[key] is None else scale * found[key] for key in ("value", "low", "high")}
        return ends | {key: found[key] for key in ("interval", "n_pairs", "p", "test")}
    weighed = _weighed(counted, differences)
    moments = strata.moments(weighed, worst=-1.0)
    tested = strata.weighted_flips(weighed, seed_of(f"{place} {made.metric} flips"))
    interval, tested = strata.agreed(strata.difference_interval(moments), tested)
    return {
        "value": made.scale * moments.mean,
        "low": made.scale * interval.low,
        "high": made.scale * interval.high,
        "interval": interval.method,
        "n_pairs": len(counted),
        "p": tested.p,
        "test": tested.method,
    }


def _as_seen(metric: cells.Metric, values: Sequence[float]) -> cells.Metric:
    finite = math.isfinite(metric.high - metric.low)
    return replace(metric, binary=finite and all(value in (metric.low, metric.high) for value in values))


# --- resampled lines -------------------------------------------------------------------------------------------------


def _n_draws(n_rows: int) -> int:
    """How many draws the cap on work allows; the method's name in the file says how many there were."""
    return min(DRAWS, max(LEAST_DRAWS, MOST_WORK // max(1, n_rows)))


def _draw(
    benchmark: Benchmark,
    rows: Sequence[Graded],
    strata: Sequence[Sequence[Cluster]],
    why: Mapping[LineName, str],
    place: str,
) -> dict[LineName, Draws]:
    """Resampled values of the lines that have no closed form (why: for what reason); nothing is drawn without any."""
    open_lines = {name: Draws() for name in why}
    if not open_lines or _too_few(strata):
        return {name: Draws(reason=few_clusters(reason) if strata else "") for name, reason in why.items()}
    generator, n = random.Random(seed_of(f"{place} draws")), _n_draws(len(rows))
    for _ in range(n):
        given = _by_name(benchmark.aggregate(rows_of(strata, list(resample(strata, generator)))))
        for name, draws in open_lines.items():
            draws.asked += 1
            if (value := given.get(name)) is not None:
                draws.values.append(value)
    return open_lines


def few_clusters(why: str) -> str:
    """Why a line that has no closed form has no interval."""
    return f"none: {why}, and a task or length has fewer than {LEAST_CLUSTERS} documents or groups"


def _too_few(groups: Sequence[Sequence[Cluster]]) -> bool:
    return any(len(group) < LEAST_CLUSTERS for group in groups)


def _by_name(lines: Sequence[Line]) -> dict[LineName, float | None]:
    return {(line.name, line.metric): _number(line.value) for line in lines}


class Paired:
    """The rows of two arms that both answered, in one order. rows: the arm's; base: the baseline's."""

    def __init__(self, rows: Sequence[Graded], base: Sequence[Graded]) -> None:
        theirs = {spot(row): row for row in base if row.answered}
        both = [(row, theirs[spot(row)]) for row in rows if row.answered and spot(row) in theirs]
        self.rows = [_valued(row, other) for row, other in both]
        self.base = [_valued(other, row) for row, other in both]

    def clusters(self) -> list[list[tuple[Cluster, Cluster]]]:
        """Clusters of the arm, each with the baseline's rows of the same questions."""
        theirs = {spot(row): row for row in self.base}
        return [
            [(cluster, Cluster([theirs[spot(row)] for row in cluster.rows])) for cluster in stratum]
            for stratum in strata_of(self.rows)
        ]


def _valued(row: Graded, other: Graded) -> Graded:
    """The row with the values that the other has too."""
    known = {name for name, one in other.scored.items() if one.value is not None}
    if all(one.value is None or name in known for name, one in row.scored.items()):
        return row
    kept = {name: one if name in known else replace(one, value=None) for name, one in row.scored.items()}
    return replace(row, scored=kept)


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
    why: Mapping[LineName, str],
    place: str,
) -> tuple[dict[LineName, Draws], list[list[Cluster]]]:
    """Resampled differences of the lines that have no closed form (why): both arms by the same draws."""
    found = {name: Draws() for name in why}
    if pairs is None or not found:
        return found, []
    both = pairs.clusters()
    mine, theirs = ([[pair[side] for pair in stratum] for stratum in both] for side in (0, 1))
    if _too_few(mine):
        return {name: Draws(reason=few_clusters(reason)) for name, reason in why.items()}, mine
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
    made again. A line that looks like noise is settled after `ENOUGH_HITS` differences as large as its own.

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
    swapped: Mapping[LineName, stats.Tested],
) -> dict[str, Json] | None:
    """The difference of a line that is not a mean. Interval and test agree (see `strata.agreed`)."""
    if pairs is None or name not in lines:
        return None
    (found, groups), p = drawn, swapped[name].p
    record = {"value": lines[name], **found[name].interval(lines[name], groups), "n_pairs": len(pairs.rows)}
    if record["low"] is not None:
        if record["low"] <= 0 <= record["high"]:
            p = max(p, cells.ALPHA)
        if p >= cells.ALPHA:
            record |= {"low": min(record["low"], 0.0), "high": max(record["high"], 0.0)}
    return record | {"p": p, "test": swapped[name].method}
