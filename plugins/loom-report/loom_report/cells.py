"""From a ledger to the cells of a report: scores with intervals, differences to the baseline, honest denominators.

A cell is a task × level × arm; a total is the same over all levels. Every planned answer of a cell is counted exactly
once: scored, without a value, failed, or missing. Knows statistics and ledgers; knows no file and no page.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import cast

from loom_core.contract.keys import seed_of
from loom_core.contract.types import Json
from loom_report import unscored, weighting
from loom_report.costs import Footing, common_footing, cost
from loom_report.evidence_losses import evidence
from loom_report.ledger import Answer, Ledger
from loom_report.records import CellRow
from loom_report.statistics import stats, strata

BASELINE = "dense"
ALPHA = 0.05


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


def build(ledger: Ledger) -> tuple[list[CellRow], list[CellRow]]:
    """(cells, totals), each by task, level and arm in the order of the plan, with p values adjusted over each list."""
    cells: list[dict[str, Json]] = []
    totals: list[dict[str, Json]] = []
    arms = [arm["name"] for arm in ledger.plan["arms"]]
    for task in ledger.plan["tasks"]:
        metrics, levels = metrics_of(ledger, task), levels_of(ledger, task["name"])
        for level in levels:
            cells += _row(ledger, task, level, arms, metrics)
        if levels:
            totals += _reweighed(ledger, task["name"], _row(ledger, task, None, arms, metrics), cells, metrics)
    for rows in (cells, totals):
        for primary in (True, False):
            adjust([s["delta"] for row in rows for s in row["scores"] if s["primary"] == primary and s["delta"]])
    return cast(list[CellRow], cells), cast(list[CellRow], totals)


def _row(
    ledger: Ledger, task: Mapping[str, Json], level: str | None, arms: Sequence[str], metrics: Sequence[Metric]
) -> list[dict[str, Json]]:
    """The cells of one task and level, one an arm."""
    answers = {arm: ledger.of(task["name"], level, arm) for arm in arms}
    footing = common_footing(answers)
    rows = [_cell(ledger, task, level, arm, answers[arm], footing) for arm in arms]
    for metric in metrics:
        values = {arm: scored_of(ledger, metric, answers[arm]) for arm in arms}
        noise = _noise(values.get(BASELINE, []))
        base = _score(metric, values.get(BASELINE, []), (task["name"], level, BASELINE))
        flag = _flag(metric, base)
        for row in rows:
            place = (task["name"], level, row["arm"])
            scored = values[row["arm"]]
            score = _score(metric, scored, place)
            n = row["n_answered"] - len(scored)
            score |= {"n_unscored": n, "flag": flag, "noise": noise, "span": metric.span}
            score["bounds"] = unscored.bounds([value for _, value in scored], n, metric.worst, metric.best)
            score["delta"] = None
            if row["arm"] != BASELINE and BASELINE in arms:
                score["delta"] = _delta(metric, scored, values[BASELINE], noise, place)
            row["scores"].append(score)
            if metric.primary:
                row["evidence"] = evidence(answers[row["arm"]], scored, metric.best)
        _shift(ledger, (task["name"], level), metric, rows, values)
    return rows


def _shift(
    ledger: Ledger,
    place: tuple[str, str | None],
    metric: Metric,
    rows: Sequence[Mapping[str, Json]],
    values: Mapping[str, Scored],
) -> None:
    """Correct the scores of a stratum whose size its own primary scores decided (see `weighting`)."""
    part = ledger.subset.part(*place) if ledger.subset is not None else None
    if part is None or not metric.primary:
        return
    scores = {row["arm"]: row["scores"][-1] for row in rows}
    widths = {arm: s["high"] - s["low"] for arm, s in scores.items() if s["low"] is not None}
    if not widths:
        return
    steering = _by_unit(values[max(widths, key=lambda arm: widths[arm])])
    shifts = {arm: weighting.shift(_by_unit(scored), steering, part) for arm, scored in values.items()}
    for arm, score in scores.items():
        if score["score"] is not None:
            score |= {"score": score["score"] + shifts[arm], "shift": shifts[arm]}
            score["bounds"] = score["bounds"] and [end + shifts[arm] for end in score["bounds"]]
        if score["delta"] is not None:
            score["delta"]["value"] += shifts[arm] - shifts[BASELINE]


def _by_unit(scored: Scored) -> list[tuple[Hashable, float]]:
    """Values with the unit that each was drawn in."""
    return [(answer.question.group or _cluster(answer), value) for answer, value in scored]


def _reweighed(
    ledger: Ledger,
    task: str,
    totals: list[dict[str, Json]],
    cells: Sequence[Mapping[str, Json]],
    metrics: Sequence[Metric],
) -> list[dict[str, Json]]:
    """Totals over levels that were not asked to the same extent: each level counts by its planned questions."""
    weights = ledger.subset.weights(task) if ledger.subset is not None else None
    if weights is None:
        return totals
    for total in totals:
        rows = {cell["level"]: cell for cell in cells if cell["task"] == task and cell["arm"] == total["arm"]}
        for i, metric in enumerate(metrics):
            score = total["scores"][i]
            parts = [(weight, rows[level]["scores"][i]) for level, weight in weights.items()]
            found = weighting.combined(parts, "score")
            score |= {"score": found.pop("value"), **found, "bounds": unscored.weighed(parts)}
            if score["delta"] is None:
                continue
            deltas = [(weight, row["delta"] or {}) for weight, row in parts]
            pairs = _pairs(ledger, metric, task, total["arm"])
            seed = seed_of(f"{task} {total['arm']} {metric.name} weighted")
            score["delta"] |= weighting.combined_difference(deltas, pairs, weights, seed)
            if score["delta"]["value"] is None:
                score["delta"] = None
    return totals


def _pairs(ledger: Ledger, metric: Metric, task: str, arm: str) -> list[tuple[str, Hashable, float]]:
    """(level, cluster, difference to the baseline) of the questions that both answered."""
    base = scored_of(ledger, metric, ledger.of(task, None, BASELINE))
    other = {(answer.question.number, answer.repeat): value for answer, value in base}
    return [
        (answer.question.level, _cluster(answer), (value - other[answer.question.number, answer.repeat]) / metric.span)
        for answer, value in scored_of(ledger, metric, ledger.of(task, None, arm))
        if (answer.question.number, answer.repeat) in other
    ]


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
        "n_unfinished": sum(any(call.unfinished for call in answer.calls) for answer in done),
        "n_empty": sum(answer.calls[-1].empty for answer in done if answer.calls),
        "n_empty_reasoned": sum(
            answer.calls[-1].empty and answer.calls[-1].reasoned for answer in done if answer.calls
        ),
        "tokens_thinking": sum(call.n_reasoning for answer in done for call in answer.calls),
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


def scored_of(ledger: Ledger, metric: Metric, answers: Iterable[Answer]) -> Scored:
    """The answers that have a value."""
    values = ledger.values.get((metric.name, metric.version), {})
    rows = []
    for answer in answers:
        value = values.get(answer.key) if answer.state == "answered" else None
        if value is not None:
            rows.append((answer, value))
    return rows


def _cluster(answer: Answer) -> tuple[str, str | int]:
    """The document of an answer; without one, its question (repeats of a question are not new evidence)."""
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
        "interval": interval.method if interval else stats.FEW_UNBOUNDED if scored else None,
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
    bounded = math.isfinite(metric.high - metric.low)
    if metric.binary and single:
        interval: stats.Interval | None = stats.paired_binary_interval(gains, losses, len(pairs))
        tested = stats.Tested(stats.mcnemar_exact(gains, losses), "mcnemar, exact")
        if tested.p >= ALPHA and interval is not None:
            # What the exact test does not exclude is inside; where it excludes 0, this interval does too.
            interval = interval._replace(low=min(interval.low, 0.0), high=max(interval.high, 0.0))
    elif bounded and all(abs(d) <= 1 + 1e-9 for d in differences):
        share = 1 / len(pairs)
        weighed = [strata.Weighed(d, share, cluster, None) for d, cluster in zip(differences, clusters, strict=True)]
        compared = strata.difference_interval(strata.moments(weighed, worst=-1.0))
        interval, tested = strata.agreed(compared, stats.sign_flip(differences, clusters, seed=seed))
    else:
        interval = stats.unbounded_mean(differences, clusters, seed=seed)
        tested = stats.sign_flip(differences, clusters, seed=seed)
        if interval is not None:
            p = max(tested.p, ALPHA) if interval.low <= 0 <= interval.high else tested.p
            tested = tested._replace(p=p)
            if p >= ALPHA:
                interval = interval._replace(low=min(interval.low, 0.0), high=max(interval.high, 0.0))
    better, worse = (gains, losses) if metric.higher_is_better else (losses, gains)
    return {
        "value": value * metric.span,
        "low": interval.low * metric.span if interval else None,
        "high": interval.high * metric.span if interval else None,
        "interval": interval.method if interval else stats.FEW_UNBOUNDED,
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
