"""Numbers and foreign text as people read them. Knows units; knows no report."""

from __future__ import annotations

import math

from loom_core.contract.foreign import one_line as one_line, visible as visible

NONE = "–"


def cut_middle(text: str, limit: int) -> tuple[str, int, str]:
    """(head, characters cut, tail): at most `limit` characters of a text, two thirds of them from its start."""
    if len(text) <= limit:
        return text, 0, ""
    head = limit * 2 // 3
    tail = limit - head
    return text[:head], len(text) - limit, text[len(text) - tail :]


def decimals(span: float) -> int:
    """Digits after the point that suit a metric with this range: 3 for 0 to 1, 1 for 0 to 100."""
    return 3 if span <= 2 else 2 if span <= 20 else 1


def score(value: float | None, span: float) -> str:
    """A score in its metric's own scale."""
    return NONE if value is None else f"{value:.{decimals(span)}f}"


def signed(value: float | None, span: float) -> str:
    """A difference, always with its sign; no difference has none."""
    if value is None:
        return NONE
    text = f"{value:+.{decimals(span)}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def interval(low: float | None, high: float | None, span: float, *, sign: bool = False) -> str:
    """An interval, [low, high]."""
    if low is None or high is None:
        return NONE
    show = signed if sign else score
    return f"[{show(low, span)}, {show(high, span)}]"


def p_value(value: float | None) -> str:
    """A p value with two figures, never 0."""
    if value is None:
        return NONE
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def share(value: float | None) -> str:
    """A share as a percentage."""
    if value is None:
        return NONE
    return f"{100 * value:.3g} %" if abs(value) >= 0.001 or value == 0 else "<0.1 %"


def byte_count(value: float | None) -> str:
    """Bytes in decimal units, three figures."""
    if value is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{_three(value)} {unit}"
        value /= 1000
    return f"{_three(value)} TB"


def duration(value: float | None) -> str:
    """Seconds as µs, ms, s or min, three figures."""
    if value is None:
        return NONE
    if value < 9.995e-4:
        return f"{_three(value * 1e6)} µs"
    if value < 0.9995:
        return f"{_three(value * 1e3)} ms"
    return f"{_three(value)} s" if value < 120 else f"{_three(value / 60)} min"


def round_number(shown: str) -> str:
    """A shown quantity without needless digits, for ticks: 5.00 MB becomes 5 MB, and zero needs no unit."""
    number, _, unit = shown.partition(" ")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return number if number == "0" or not unit else f"{number} {unit}"


def _three(value: float) -> str:
    """Three figures; more only before the point."""
    value = float(f"{value:.3g}") if abs(value) < 1000 else value
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value)) + 1e-12))}f}"


def count(value: int | float | None) -> str:
    """A whole number with thin separators."""
    return NONE if value is None else f"{value:,.0f}".replace(",", " ")


def percent_depth(depth: float) -> str:
    """A relative position as a percentage."""
    return f"{round(100 * depth, 1):g} %"
