"""From a ledger to the cells of a report: scores with intervals, differences to the baseline, honest denominators.

A cell is a task × level × arm; a total is the same over all levels. Every planned answer of a cell is counted exactly
once: scored, without a value, failed, or missing. Knows statistics and ledgers; knows no file and no page.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from loom_core import stats
from loom_core.costs import Footing, common_footing, cost
from loom_core.keys import seed_of
from loom_core.ledger import Answer, Ledger
from loom_core.losses import evidence
from loom_core.types import Json

BASELINE = "dense"
ALPHA = 0.05
MOST_DEPTHS = 12
DEPTH_BINS = 10
SHARE_KEPT = 0.85


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a task as the plan states it. binary: every value of this run is its best or its worst one."""

    name: str
    version: str
    low: float
    high: float
    higher_is_better: bool
    primary: bool
    binary: bool
    chance: float | None

    @property
    def best(self) -> float:
        """The best possible value."""
        return self.high if self.higher_is_better else self.low

    @property
    def worst(self) -> float:
        """The worst possible value."""
        return self.low if self.higher_is_better else self.high

    @property
    def span(self) -> float:
        """The width of its range; 1 where that has no end."""
        span = self.high - self.low
        return span if math.isfinite(span) and span > 0 else 1.0


def metrics_of(ledger: Ledger, task: Mapping[str, Json]) -> list[Metric]:
    """The metrics of a task, the primary one first."""
    keys = {a.key for (name, _, _), rows in ledger.answers.items() if name == task["name"] for a in rows}
    found = []
    for i, row in enumerate(task["metrics"]):
        low, high = _bound(row.get("low"), -math.inf), _bound(row.get("high"), math.inf)
        values = ledger.values.get((row["name"], row["version"]), {})
        binary = math.isfinite(high - low) and all(values.get(key) in (None, low, high) for key in keys)
        chance = task.get("chance") if i == 0 else None
        better = bool(row.get("higher_is_better", True))
        found.append(Metric(row["name"], row["version"], low, high, better, i == 0, binary, chance))
    return found


def _bound(value: float | None, missing: float) -> float:
    return missing if value is None else float(value)


def levels_of(ledger: Ledger, task: str) -> list[str]:
    """The levels of a task, by the median length of their questions, then in the order of the samples."""
    found = [(level, rows) for (name, level), rows in ledger.questions.items() if name == task]
    lengths = {level: [q.length for q in rows if q.length is not None] for level, rows in found}
    return sorted(lengths, key=lambda level: median(lengths[level]) if lengths[level] else 0.0)


def build(ledger: Ledger) -> tuple[list[dict[str, Json]], list[dict[str, Json]]]:
    """(cells, totals), each by task, level and arm in the order of the plan, with p values adjusted over each list."""
    cells: list[dict[str, Json]] = []
    totals: list[dict[str, Json]] = []
    arms = [arm["name"] for arm in ledger.plan["arms"]]
    for task in ledger.plan["tasks"]:
        metrics, levels = metrics_of(ledger, task), levels_of(ledger, task["name"])
        for level in levels:
            cells += _row(ledger, task, level, arms, metrics)
        if levels:
            totals += _row(ledger, task, None, arms, metrics)
    for rows in (cells, totals):
        for primary in (True, False):
            adjust([s["delta"] for row in rows for s in row["scores"] if s["primary"] == primary and s["delta"]])
    return cells, totals


def _row(
    ledger: Ledger, task: Mapping[str, Json], level: str | None, arms: Sequence[str], metrics: Sequence[Metric]
) -> list[dict[str, Json]]:
    """The cells of one task and level, one an arm."""
    answers = {arm: ledger.of(task["name"], level, arm) for arm in arms}
    footing = common_footing(answers)
    rows = [_cell(ledger, task, level, arm, answers[arm], footing) for arm in arms]
    for metric in metrics:
        values = {arm: _scored(ledger, metric, answers[arm]) for arm in arms}
        noise = _noise(values.get(BASELINE, []))
        base = _score(metric, values.get(BASELINE, []), (task["name"], level, BASELINE))
        flag = _flag(metric, base)
        for row in rows:
            place = (task["name"], level, row["arm"])
            scored = values[row["arm"]]
            score = _score(metric, scored, place)
            score |= {"n_unscored": row["n_answered"] - len(scored), "flag": flag, "noise": noise}
            score["delta"] = None
            if row["arm"] != BASELINE and BASELINE in arms:
                score["delta"] = _delta(metric, scored, values[BASELINE], noise, place)
            row["scores"].append(score)
            if metric.primary:
                row["evidence"] = evidence(answers[row["arm"]], scored, metric.best)
    return rows


def _cell(
    ledger: Ledger,
    task: Mapping[str, Json],
    level: str | None,
    arm: str,
    answers: Sequence[Answer],
    footing: Footing,
) -> dict[str, Json]:
    """Counts and costs of a cell, without its scores."""
    states = [answer.state for answer in answers]
    asked, planned = ledger.asked(task["name"], level), {answer.question.number for answer in answers}
    done = [answer for answer in answers if answer.state == "answered"]
    dropped = [sum(call.n_dropped for call in answer.calls) for answer in done]
    reasons = [call.failure for answer in answers if answer.state == "error" for call in answer.calls if call.failure]
    return {
        "task": task["name"],
        "level": level,
        "arm": arm,
        "n_planned": len(answers),
        "n_answered": len(done),
        "n_error": states.count("error"),
        "n_missing": states.count("missing"),
        "n_skipped": sum(question.number not in planned for question in asked),
        "n_truncated": sum(n > 0 for n in dropped),
        "tokens_dropped": sum(dropped),
        "n_cut_short": sum(any(call.cut_short for call in answer.calls) for answer in done),
        "example_error": reasons[0] if reasons else None,
        "length": _median_length(answers),
        "scores": [],
        "cost": cost(answers, footing),
        "evidence": None,
    }


def _median_length(answers: Iterable[Answer]) -> float | None:
    lengths = [answer.question.length for answer in answers if answer.question.length is not None]
    return median(lengths) if lengths else None


Scored = list[tuple[Answer, float]]


def _scored(ledger: Ledger, metric: Metric, answers: Iterable[Answer]) -> Scored:
    """The answers that have a value."""
    values = ledger.values.get((metric.name, metric.version), {})
    rows = []
    for answer in answers:
        value = values.get(answer.key) if answer.state == "answered" else None
        if value is not None:
            rows.append((answer, value))
    return rows


def _cluster(answer: Answer) -> tuple[str, str | int]:
    """The document of an answer; without one, its question (repeats of a question are no new evidence)."""
    question = answer.question
    return (question.task, question.number if question.cluster is None else f"document {question.cluster}")


def _score(metric: Metric, scored: Scored, place: tuple[Json, ...]) -> dict[str, Json]:
    """Mean, interval and n of a metric over the scored answers of a cell."""
    interval = None
    if scored:
        interval = stats.mean_interval(
            [value for _, value in scored],
            [_cluster(answer) for answer, _ in scored],
            bounds=(metric.low, metric.high),
            seed=seed_of(f"{place} {metric.name}"),
        )
    return {
        "metric": metric.name,
        "version": metric.version,
        "primary": metric.primary,
        "score": fmean(value for _, value in scored) if scored else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "interval": interval.method if interval else None,
        "n": len(scored),
        "n_clusters": len({_cluster(answer) for answer, _ in scored}),
    }


def _noise(baseline: Scored) -> dict[str, Json] | None:
    """How far the baseline differs from itself: over its repeats, the spread of scores and the share of questions that
    change. None where it was asked once: then the noise floor is not measured.
    """
    by_repeat: dict[int, dict[int, float]] = {}
    for answer, value in baseline:
        by_repeat.setdefault(answer.repeat, {})[answer.question.number] = value
    if len(by_repeat) < 2:
        return None
    common = set.intersection(*(set(values) for values in by_repeat.values()))
    if not common:
        return None
    means = [fmean(values[number] for number in common) for values in by_repeat.values()]
    changed = sum(len({values[number] for values in by_repeat.values()}) > 1 for number in common)
    return {"repeats": len(by_repeat), "spread": max(means) - min(means), "changed": changed / len(common)}


def _flag(metric: Metric, base: Mapping[str, Json]) -> str | None:
    """Why this cell cannot tell methods apart: the baseline is within its noise of chance, the floor or the ceiling."""
    if base["low"] is None:
        return None
    inside = base["low"], base["high"]
    sign = 1 if metric.higher_is_better else -1
    if math.isfinite(metric.best) and inside[0] <= metric.best <= inside[1]:
        return "ceiling"
    if metric.chance is not None:
        below = sign * (base["score"] - metric.chance) <= 0
        return "chance" if below or inside[0] <= metric.chance <= inside[1] else None
    return "floor" if math.isfinite(metric.worst) and inside[0] <= metric.worst <= inside[1] else None


def _delta(
    metric: Metric, scored: Scored, baseline: Scored, noise: Mapping[str, Json] | None, place: tuple[Json, ...]
) -> dict[str, Json] | None:
    """The difference to the baseline over questions (and repeats) that both answered; None without such pairs."""
    other = {(answer.question.number, answer.repeat): value for answer, value in baseline}
    pairs = [
        (answer, value, other[answer.question.number, answer.repeat])
        for answer, value in scored
        if (answer.question.number, answer.repeat) in other
    ]
    if not pairs:
        return None
    found = difference(
        metric, [(_cluster(a), mine, theirs) for a, mine, theirs in pairs], f"{place} {metric.name} delta"
    )
    floor = noise["spread"] if noise else None
    return found | {"within_noise": None if floor is None else abs(found["value"]) <= floor}


def difference(metric: Metric, pairs: Sequence[tuple[Hashable, float, float]], place: str) -> dict[str, Json]:
    """Mean of (value - other value) over one pair or more (cluster, value, other value), with interval and test.

    place: what is compared, from which the draws are seeded. Exact McNemar for single 0/1 pairs, else a sign-flip test
    over clusters.
    """
    differences = [(mine - theirs) / metric.span for _, mine, theirs in pairs]
    clusters = [cluster for cluster, _, _ in pairs]
    seed = seed_of(place)
    single = len(set(clusters)) == len(clusters)
    gains, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    value = fmean(differences)
    if metric.binary and single:
        interval: stats.Interval | None = stats.paired_binary_interval(gains, losses, len(pairs))
        tested = stats.Tested(stats.mcnemar_exact(gains, losses), "mcnemar, exact")
    else:
        interval = stats.bootstrap(differences, clusters, seed=seed)
        tested = stats.sign_flip(differences, clusters, seed=seed)
        if interval is not None and interval.high - interval.low < 1e-12 and math.isfinite(metric.high - metric.low):
            # Every cluster differs by the same amount: a resample has no width, but so few pairs leave doubt.
            width = stats.paired_binary_interval(0, 0, len(set(clusters))).high
            interval = stats.Interval(max(-1.0, value - width), min(1.0, value + width), "bonett-price bound")
    better, worse = (gains, losses) if metric.higher_is_better else (losses, gains)
    return {
        "value": value * metric.span,
        "low": interval.low * metric.span if interval else None,
        "high": interval.high * metric.span if interval else None,
        "interval": interval.method if interval else None,
        "p": tested.p,
        "test": tested.method,
        "n_pairs": len(pairs),
        "n_better": better,
        "n_worse": worse,
    }


def adjust(deltas: Sequence[dict[str, Json]]) -> None:
    """Add Holm's adjusted p, the size of the family and the verdict to each difference."""
    for delta, p in zip(deltas, stats.holm([delta["p"] for delta in deltas]), strict=True):
        delta |= {"p_holm": p, "family": len(deltas), "significant": p < ALPHA}


def effective_lengths(ledger: Ledger, cells: Sequence[Mapping[str, Json]]) -> list[dict[str, Json]]:
    """Per task and arm: the longest level that keeps 85 % of the baseline's primary score at the shortest."""
    found = []
    for task in ledger.plan["tasks"]:
        levels = levels_of(ledger, task["name"])
        lower_is_better = any(not m.get("higher_is_better", True) for m in task["metrics"][:1])
        if len(levels) < 2 or lower_is_better or not task["metrics"]:
            continue
        base = [c for c in cells if c["task"] == task["name"] and c["arm"] == BASELINE]
        reference = base[0]["scores"][0]["score"] if base else None
        for arm in ledger.plan["arms"]:
            rows = [c for c in cells if c["task"] == task["name"] and c["arm"] == arm["name"]]
            held = stats.effective_length([row["scores"][0]["score"] for row in rows], SHARE_KEPT, reference)
            found.append(
                {
                    "task": task["name"],
                    "arm": arm["name"],
                    "level": levels[held.level] if held else None,
                    "tokens": rows[held.level]["length"] if held else None,
                    "at_least": held.at_least if held else None,
                    "gap": held.gap if held else None,
                    "reference": reference,
                    "share": SHARE_KEPT,
                }
            )
    return found


def grids(ledger: Ledger) -> list[dict[str, Json]]:
    """Per task and arm, the primary score by level and depth, for tasks whose questions record a depth.

    rows: depths from the start of the context to its end. values[row][column]: {score, n, n_planned}, or None where
    nothing was asked.
    """
    found = []
    for task in ledger.plan["tasks"]:
        name, levels = task["name"], levels_of(ledger, task["name"])
        depths = sorted({q.depth for level in levels for q in ledger.asked(name, level) if q.depth is not None})
        metrics = metrics_of(ledger, task)
        if not depths or not metrics:
            continue
        edges = depths if len(depths) <= MOST_DEPTHS else [(i + 0.5) / DEPTH_BINS for i in range(DEPTH_BINS)]
        for arm in ledger.plan["arms"]:
            columns = [_by_depth(ledger, metrics[0], ledger.of(name, level, arm["name"]), edges) for level in levels]
            found.append(
                {
                    "task": name,
                    "arm": arm["name"],
                    "metric": metrics[0].name,
                    "low": metrics[0].low if math.isfinite(metrics[0].low) else None,
                    "high": metrics[0].high if math.isfinite(metrics[0].high) else None,
                    "levels": levels,
                    "depths": edges,
                    "binned": len(depths) > MOST_DEPTHS,
                    "values": [list(row) for row in zip(*columns, strict=True)],
                }
            )
    return found


def _by_depth(ledger: Ledger, metric: Metric, answers: Iterable[Answer], depths: Sequence[float]) -> list[Json]:
    """One column of a grid: {score, n, n_planned} at each depth."""
    groups: list[list[Answer]] = [[] for _ in depths]
    for answer in answers:
        depth = answer.question.depth
        if depth is not None:
            groups[min(range(len(depths)), key=lambda i: abs(depths[i] - depth))].append(answer)
    column: list[Json] = []
    for group in groups:
        values = [value for _, value in _scored(ledger, metric, group)]
        score = fmean(values) if values else None
        column.append({"score": score, "n": len(values), "n_planned": len(group)} if group else None)
    return column
