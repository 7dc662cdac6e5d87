"""Which pictures a report has: score by length, quality and cost, retention; each with its table.

Knows report.json's dict and draws with `svg`; knows no page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from loom_report.build import rows_of
from loom_report.records import Report, ReportTask
from loom_report.render import svg, text
from loom_report.render.svg import Axes, Line, Point, Style
from loom_report.render.tables import Cell, Table


class Picture(NamedTuple):
    """A chart, its caption, the names in its legend with their styles, and the numbers it shows."""

    image: str
    caption: str
    legend: Sequence[tuple[str, Style]]
    joined: bool
    table: Table


def score_range(task: ReportTask, values: Sequence[float | None]) -> tuple[float, float]:
    """The metric's own range; that of the values (with a margin) where the metric has none."""
    metric = task["metrics"][0]
    low, high = metric.get("low"), metric.get("high")
    known = [value for value in values if value is not None] or [0.0, 1.0]
    margin = 0.05 * ((max(known) - min(known)) or 1.0)
    return (min(known) - margin if low is None else low), (max(known) + margin if high is None else high)


def _number(span: float) -> svg.Number:
    return lambda value: f"{value:.2g}" if span <= 2 else f"{value:g}"


def _no_score(row: Mapping[str, Any]) -> bool:
    return not row["scores"] or row["scores"][0]["score"] is None


def by_length(report: Report, task: ReportTask, styles: Mapping[str, Style]) -> Picture | None:
    """Score against length with 95 % intervals; None for a single level."""
    cells = [row for row in rows_of(report["cells"], task["name"]) if not _no_score(row)]
    levels = [level["level"] for level in task["levels"]]
    if len(levels) < 2 or not cells:
        return None
    places = _places(task["levels"])
    table = Table("score by length", ["arm", "level", "score", "95 % CI", "n"], n_left=2)
    lines = []
    for arm in report["arms"]:
        points = []
        for row in cells:
            if row["arm"] == arm["name"]:
                score = row["scores"][0]
                shown = text.score(score["score"], task["span"])
                between = text.interval(score["low"], score["high"], task["span"])
                tip = f"{row['level']}: {shown} {between}, n = {score['n']}"
                points.append(Point(places[row["level"]], score["score"], score["low"], score["high"], tip))
                table.rows.append(list(map(Cell, (arm["name"], row["level"], shown, between, str(score["n"])))))
        lines.append(Line(arm["name"], styles[arm["name"]], sorted(points)))
    low, high = score_range(task, [p.y for line in lines for p in line.points])
    axes = Axes(
        "prompt tokens" if task["levels"][0]["tokens_min"] is not None else "level",
        task["primary"] or "",
        (min(places.values()) - 0.15, max(places.values()) + 0.15),
        (low, high),
        [(places[level], level) for level in levels],
        svg.ticks(low, high, _number(task["span"])),
    )
    held = [row for row in report["effective_lengths"] if row["task"] == task["name"]]
    reference = held[0]["reference"] if held else None
    extra = []
    if reference:
        y = axes.y(held[0]["share"] * reference)
        extra.append(f'<path class="threshold" d="M{axes.LEFT} {y:.1f}H{axes.width - axes.RIGHT:.1f}"/>')
    image = svg.plot(axes, lines, f"{task['name']}: score by length", extra)
    caption = "Score against length; bars are 95 % intervals."
    if reference:
        caption += " Dashed: 85 % of dense at the shortest length."
    return Picture(image, caption, [(line.name, line.style) for line in lines], True, table)


def _places(levels: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Where levels stand: at the logarithm of their tokens, or evenly where those are unknown or too close."""
    middles = [((level["tokens_min"] or 0) + (level["tokens_max"] or 0)) / 2 for level in levels]
    logs = [math.log2(value) if value > 0 else 0.0 for value in middles]
    gaps = [b - a for a, b in pairwise(logs)]
    even = not all(middles) or min(gaps) * 9 < logs[-1] - logs[0]
    return {level["level"]: float(i) if even else logs[i] for i, level in enumerate(levels)}


def quality_and_cost(report: Report, task: ReportTask, styles: Mapping[str, Style]) -> list[Picture]:
    """Score against KV bytes held and against seconds an answer, with the front of each pair of measures."""
    rows = rows_of(report["pareto"], task["name"])
    table = Table("score, memory and time", ["arm", "score", "95 % CI", "KV held", "time an answer", "on the front"])
    for row in rows:
        shown = [text.one_line(row["arm"]), text.score(row["score"], task["span"])]
        shown += [text.interval(row["low"], row["high"], task["span"]), text.byte_count(row["bytes_held"])]
        shown += [text.duration(row["seconds"]), "yes" if row["front"] else "" if row["ranked"] else "not ranked"]
        table.rows.append(list(map(Cell, shown)))
    table.notes.append("on the front: no other arm is as good in score, memory and time and better in one of them")
    if any(not row["ranked"] for row in rows):
        table.notes.append("not ranked (hollow marks): the savings are simulated")
    found = []
    measures = (
        ("bytes_held", "KV bytes held (mean)", text.byte_count),
        ("seconds", "time an answer (median)", text.duration),
    )
    for name, label, show in measures:
        known = [row for row in rows if row[name] is not None]
        if len(known) > 1:
            caption = f"Score against {label}; bars are 95 % intervals. No arm is above and left of the stepped line."
            legend = [(row["arm"], styles[row["arm"]]) for row in known]
            found.append(Picture(_scatter(task, known, name, label, show, styles), caption, legend, False, table))
    return found


def _scatter(
    task: ReportTask,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    label: str,
    show: svg.Number,
    styles: Mapping[str, Style],
) -> str:
    top = max(row[name] for row in rows) * 1.06 or 1.0
    seen = [row[key] for row in rows for key in ("score", "low", "high") if row[key] is not None]
    floor, ceiling = score_range(task, seen)
    margin = 0.08 * (max(seen) - min(seen))
    low, high = max(floor, min(seen) - margin), min(ceiling, max(seen) + margin)
    axes = Axes(
        label,
        task["primary"] or "",
        (0.0, top),
        (low, high),
        svg.ticks(0.0, top, lambda value: text.round_number(show(value))),
        svg.ticks(low, high, _number(task["span"])),
    )
    lines, ranked = [], []
    for row in rows:
        tip = f"{text.score(row['score'], task['span'])} at {show(row[name])}"
        point = Point(row[name], row["score"], row["low"], row["high"], tip)
        lines.append(Line(row["arm"], styles[row["arm"]], [point], joined=False))
        if row["ranked"]:
            ranked.append(point)
    sign = 1 if task["metrics"][0].get("higher_is_better", True) else -1
    best: list[Point] = []
    for point in sorted(ranked, key=lambda p: (p.x, -sign * p.y)):
        if not best or sign * point.y > sign * best[-1].y:
            best.append(point)
    return svg.plot(axes, lines, f"{task['name']}: score against {label}", [svg.front(axes, best)])


def retention(report: Report, task: ReportTask, styles: Mapping[str, Style]) -> Picture | None:
    """The share of dense's score each method keeps, against compression; None where no method has two budgets."""
    series = rows_of(report["retention"], task["name"])
    if not series:
        return None
    table = Table("retention", ["method", "arm", "kept", "compression", "share of dense"], n_left=2)
    lines, stops = [], set()
    for row in series:
        points = []
        for point in row["points"]:
            compression, kept = point["compression"], text.share(point["retention"])
            stops.add(round(math.log2(compression), 2))
            tip = f"{compression:.3g}x: {kept}"
            points.append(Point(math.log2(compression), point["retention"], None, None, tip))
            shown = (row["method"], point["arm"], text.share(point["kept"]), f"{compression:.3g}x", kept)
            table.rows.append(list(map(Cell, shown)))
        lines.append(Line(row["method"], styles[row["points"][0]["arm"]], points))
    table.notes.append("a share has no interval: the paired difference to dense (Δ dense) has one")
    highest = max([1.0, *(p.high or p.y for line in lines for p in line.points)])
    doubles = range(math.floor(min(stops)), math.ceil(max(stops)) + 1)
    axes = Axes(
        "compression (1 / share of the cache kept)",
        "share of dense's score",
        (min(stops) - 0.2, max(stops) + 0.2),
        (0.0, min(highest, 1.5) * 1.02),
        [(float(k), f"{2.0**k:g}x") for k in doubles if min(stops) - 0.2 <= k <= max(stops) + 0.2],
        svg.ticks(0.0, min(highest, 1.5) * 1.02, text.share),
    )
    y = axes.y(1.0)
    level = f'<path class="threshold" d="M{axes.LEFT} {y:.1f}H{axes.width - axes.RIGHT:.1f}"/>'
    image = svg.plot(axes, lines, f"{task['name']}: retention by compression", [level])
    caption = "Share of dense's score kept, against measured compression. Dashed: dense."
    return Picture(image, caption, [(line.name, line.style) for line in lines], True, table)


FEWEST_SPOKES = 3


def capabilities(report: Report, styles: Mapping[str, Style]) -> Picture | None:
    """Arms on a spoke for each capability; None for fewer than three capabilities."""
    rows = report["capabilities"]
    if len(rows) < FEWEST_SPOKES:
        return None
    names = [arm["name"] for arm in report["arms"]]
    table = Table("capabilities", ["arm", *(row["capability"] for row in rows)])
    for name in names:
        values = [row["arms"][name] for row in rows]
        shown = [text.NONE if value is None else f"{100 * value:.1f}" for value in values]
        table.rows.append([Cell(text.one_line(name)), *map(Cell, shown)])
    table.notes += [f"{row['capability']}: {', '.join(map(text.one_line, row['tasks']))}" for row in rows]
    lines = [(name, styles[name], [row["arms"][name] for row in rows]) for name in names]
    image = svg.radar([row["capability"] for row in rows], lines, "capabilities of each arm")
    caption = "Mean over a capability's tasks of the primary score within its metric's range: 0 worst, 100 best."
    return Picture(image, caption, [(name, styles[name]) for name in names], True, table)
