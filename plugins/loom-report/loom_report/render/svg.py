"""Charts as inline SVG. Knows points and scales; colours, fonts and themes are classes of report.css.

Every text passes through `escape`; nothing here is interactive but native tooltips.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from loom_report.render import text

STEPS = 10
N_COLOURS = 8
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "down")
THIRD = 1 / 3
CROSS = [(-1, -THIRD), (-THIRD, -THIRD), (-THIRD, -1), (THIRD, -1), (THIRD, -THIRD), (1, -THIRD)]
CROSS += [(-x, -y) for x, y in CROSS]
Number = Callable[[float], str]


class Style(NamedTuple):
    """How an arm is drawn: colour and shape and dash by number; hollow for simulated savings."""

    colour: int
    shape: int
    hollow: bool


class Point(NamedTuple):
    """A value with its interval at a place, and its tooltip."""

    x: float
    y: float
    low: float | None
    high: float | None
    tip: str


@dataclass(frozen=True)
class Line:
    """A series: a name, a style, points in order; joined or not."""

    name: str
    style: Style
    points: Sequence[Point]
    joined: bool = True


def escape(value: str) -> str:
    """Visible text, safe in HTML and SVG, in content and in quoted attributes."""
    return html.escape(text.visible(value), quote=True)


def styles(arms: Sequence[Mapping[str, Any]]) -> dict[str, Style]:
    """A colour for each family of arms (the same method and options but for the budget), a shape for each in it."""
    families: dict[str, int] = {}
    counts: dict[str, int] = {}
    found = {}
    for arm in arms:
        if arm["baseline"]:
            found[arm["name"]] = Style(0, 0, False)
            continue
        colour = families.setdefault(arm["family"], len(families))
        number = counts[arm["family"]] = counts.get(arm["family"], -1) + 1
        shape = (number + colour // (N_COLOURS - 1)) % len(SHAPES)
        found[arm["name"]] = Style(1 + colour % (N_COLOURS - 1), shape, arm["saves"] == "simulated")
    return found


def svg(width: float, height: float, label: str, body: Iterable[str]) -> str:
    """A picture with a name for those who cannot see it."""
    name = escape(label)
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg class="chart" role="img" aria-label="{name}" {size}>{"".join(body)}</svg>'


def marker(x: float, y: float, style: Style, tip: str = "", size: float = 4.5) -> str:
    """The mark of a series."""
    s = size
    title = f"<title>{escape(tip)}</title>" if tip else ""
    kind = SHAPES[style.shape]
    attributes = f'class="m c{style.colour}{" hollow" if style.hollow else ""}"'
    if kind == "circle":
        return f'<circle {attributes} cx="{x:.1f}" cy="{y:.1f}" r="{s:.1f}">{title}</circle>'
    outlines = {
        "square": [(-s, -s), (s, -s), (s, s), (-s, s)],
        "triangle": [(0, -1.25 * s), (1.15 * s, s), (-1.15 * s, s)],
        "diamond": [(0, -1.35 * s), (1.35 * s, 0), (0, 1.35 * s), (-1.35 * s, 0)],
        "down": [(0, 1.25 * s), (1.15 * s, -s), (-1.15 * s, -s)],
        "cross": [(dx * s, dy * s) for dx, dy in CROSS],
    }
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in outlines[kind])
    return f'<polygon {attributes} points="{points}">{title}</polygon>'


def words(kind: str, x: float, y: float, value: str, anchor: str = "middle", *, turned: bool = False) -> str:
    """A text at a place; turned: reads upwards."""
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>{escape(value)}</text>'


def key(style: Style, *, line: bool) -> str:
    """The mark of a series for a legend."""
    stroke = f'<path class="l c{style.colour} d{style.shape}" d="M1 7H25"/>' if line else ""
    return f'<svg class="key" width="26" height="14" aria-hidden="true">{stroke}{marker(13, 7, style, size=4)}</svg>'


def heat_map(grid: Mapping[str, Any], span: float) -> str:
    """Depths down, levels across; the colour is the score within the metric's range, the number the score itself."""
    levels, depths = grid["levels"], grid["depths"]
    scores = [cell["score"] for row in grid["values"] for cell in row if cell and cell["score"] is not None]
    low = grid["low"] if grid["low"] is not None else min(scores, default=0.0)
    high = grid["high"] if grid["high"] is not None else max(scores, default=1.0)
    label_wide = 7 * max((len(level) for level in levels), default=1) + 6
    wide, high_cell = max(26, min(max(54, min(label_wide, 90)), 540 // max(1, len(levels)))), 24
    left, top = 50, 22
    body = [words("tick", left - 6, 14, "depth", "end")]
    right, every = left + wide * len(levels), math.ceil(label_wide / wide)
    for column, level in enumerate(levels):
        if column % every == 0:
            x, anchor = (left + (column + 0.5) * wide, "middle") if every == 1 else (left + column * wide, "start")
            body.append(words("tick", x, 14, level, anchor))
            right = max(right, round(x) + label_wide if every > 1 else 0)
    for row, (depth, values) in enumerate(zip(depths, grid["values"], strict=True)):
        y = top + row * high_cell
        shown = text.percent_depth(depth)
        body.append(words("tick", left - 6, y + 16, shown, "end"))
        for column, cell in enumerate(values):
            tip = f"{levels[column]}, depth {shown}"
            body.append(_heat_cell(left + column * wide, y, wide, high_cell, cell, low, high, span, tip))
    label = f"{grid['arm']}: score by depth and length"
    return svg(right + 2, top + high_cell * len(depths) + 2, label, body)


def _heat_cell(
    x: float, y: float, width: float, height: float, cell: Any, low: float, high: float, span: float, tip: str
) -> str:
    place = f'x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{width - 1:.1f}" height="{height - 1:.1f}" rx="2"'
    if cell is None or cell["score"] is None:
        planned = cell["n_planned"] if cell else 0
        return f'<rect class="none" {place}><title>{escape(f"{tip}: no score, {planned} planned")}</title></rect>'
    share = (cell["score"] - low) / (high - low) if high > low else 1.0
    step = max(0, min(STEPS, round(share * STEPS)))
    digits = f"{cell['score']:.2f}" if span <= 2 else f"{cell['score']:.0f}"
    counted = f"{text.score(cell['score'], span)}, {cell['n']} of {cell['n_planned']} answers"
    title = f"<title>{escape(f'{tip}: {counted}')}</title>"
    number = ""
    if width >= 34:
        number = words(f"heat t{step}", x + width / 2, y + height / 2 + 4, digits)
    return f'<g>{title}<rect class="h{step}" {place}/>{number}</g>'


def scale(steps: int = STEPS) -> str:
    """The colours of a heat map from worst to best."""
    cells = "".join(f'<rect class="h{i}" x="{i * 16}" y="0" width="16" height="10"/>' for i in range(steps + 1))
    return f'<svg class="scale" width="{16 * (steps + 1)}" height="10" aria-hidden="true">{cells}</svg>'


@dataclass(frozen=True)
class Axes:
    """A plotting area: what x and y mean, their range, their ticks as (place, text)."""

    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    width: float = 470
    height: float = 280

    LEFT, RIGHT, TOP, BOTTOM = 60, 18, 12, 44

    def x(self, value: float) -> float:
        """Where a value stands across."""
        low, high = self.x_range
        inner = self.width - self.LEFT - self.RIGHT
        return self.LEFT + inner * ((value - low) / (high - low) if high > low else 0.5)

    def y(self, value: float) -> float:
        """Where a value stands down."""
        low, high = self.y_range
        inner = self.height - self.TOP - self.BOTTOM
        return self.TOP + inner * (1 - ((value - low) / (high - low) if high > low else 0.5))

    def frame(self) -> list[str]:
        """Grid lines, ticks and labels."""
        bottom, right = self.height - self.BOTTOM, self.width - self.RIGHT
        parts = []
        for place, shown in self.y_ticks:
            y = self.y(place)
            parts.append(f'<path class="grid" d="M{self.LEFT} {y:.1f}H{right:.1f}"/>')
            parts.append(words("tick", self.LEFT - 7, y + 4, shown, "end"))
        for place, shown in self.x_ticks:
            x = self.x(place)
            parts.append(f'<path class="grid" d="M{x:.1f} {bottom:.1f}v4"/>')
            parts.append(words("tick", x, bottom + 17, shown))
        parts.append(f'<path class="axis" d="M{self.LEFT} {bottom:.1f}H{right:.1f}"/>')
        parts.append(words("label", (self.LEFT + right) / 2, self.height - 6, self.x_label))
        down = (self.TOP + bottom) / 2
        parts.append(words("label", 12, down, self.y_label, turned=True))
        return parts


def plot(axes: Axes, lines: Sequence[Line], label: str, extra: Iterable[str] = ()) -> str:
    """Series with their intervals; series at one place are set a little apart so that intervals stay readable."""
    body = [*axes.frame(), *extra]
    joined = [line for line in lines if line.joined]
    for line in lines:
        shift = (joined.index(line) - (len(joined) - 1) / 2) * 2.6 if line.joined else 0.0
        drawn = [(axes.x(p.x) + shift, axes.y(p.y), p) for p in line.points]
        if line.joined and len(drawn) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in drawn)
            body.append(f'<path class="l c{line.style.colour} d{line.style.shape}" d="M{path}"/>')
        for x, _, p in drawn:
            if p.low is not None and p.high is not None:
                y1, y2 = axes.y(min(p.high, axes.y_range[1])), axes.y(max(p.low, axes.y_range[0]))
                body.append(f'<path class="ci c{line.style.colour}" d="M{x:.1f} {y1:.1f}V{y2:.1f}"/>')
        body += [marker(x, y, line.style, f"{line.name}: {p.tip}") for x, y, p in drawn]
    return svg(axes.width, axes.height, label, body)


def front(axes: Axes, points: Sequence[Point]) -> str:
    """The Pareto front as steps: nothing is better in y at less x. Points are sorted by x."""
    if not points:
        return ""
    path = f"M{axes.x(points[0].x):.1f} {axes.y(points[0].y):.1f}"
    path += "".join(f"H{axes.x(p.x):.1f}V{axes.y(p.y):.1f}" for p in points[1:])
    return f'<path class="front" d="{path}H{axes.width - axes.RIGHT:.1f}"/>'


RADIUS = 118.0


def radar(spokes: Sequence[str], lines: Sequence[tuple[str, Style, Sequence[float | None]]], label: str) -> str:
    """Values from 0 (centre) to 1 (rim), one a spoke; a line is closed only where it has a value on every spoke."""
    width, height = 470.0, 2 * RADIUS + 92
    x0, y0 = width / 2, height / 2
    turns = [2 * math.pi * i / len(spokes) - math.pi / 2 for i in range(len(spokes))]

    def place(i: int, value: float) -> tuple[float, float]:
        return x0 + RADIUS * value * math.cos(turns[i]), y0 + RADIUS * value * math.sin(turns[i])

    def ring(values: Sequence[float]) -> str:
        return "M" + "L".join("{:.1f} {:.1f}".format(*place(i, value)) for i, value in enumerate(values)) + "Z"

    body = [f'<path class="grid" d="{ring([share] * len(spokes))}"/>' for share in (0.25, 0.5, 0.75, 1.0)]
    for i, spoke in enumerate(spokes):
        x, y = place(i, 1.0)
        body.append(f'<path class="grid" d="M{x0:.1f} {y0:.1f}L{x:.1f} {y:.1f}"/>')
        x, y = place(i, 1.0 + 14 / RADIUS)
        side = math.cos(turns[i])
        anchor = "middle" if abs(side) < 0.2 else "start" if side > 0 else "end"
        body.append(words("label", x, y + 4, spoke, anchor))
    between = math.pi / len(spokes) - math.pi / 2
    for share in (0.25, 0.5, 0.75, 1.0):
        away = RADIUS * share * math.cos(math.pi / len(spokes))
        x, y = x0 + away * math.cos(between), y0 + away * math.sin(between)
        body.append(words("tick", x, y + 4, f"{100 * share:.0f}"))
    for _, style, values in lines:
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            body.append(f'<path class="l c{style.colour} d{style.shape}" d="{ring(known)}"/>')
    for name, style, values in lines:
        for i, value in enumerate(values):
            if value is not None:
                body.append(marker(*place(i, value), style, f"{name}, {spokes[i]}: {100 * value:.1f}"))
    return svg(width, height, label, body)


def ticks(low: float, high: float, show: Number, wanted: int = 5) -> list[tuple[float, str]]:
    """About `wanted` round places between low and high."""
    if not high > low:
        return [(low, show(low))]
    raw = (high - low) / wanted
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [((first + i) * step, show((first + i) * step)) for i in range(count)]
