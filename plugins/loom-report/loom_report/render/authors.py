"""The benchmark authors' own tables as plain rows of text, in their scale and decimals.

Knows official.json's lines as report.json has them; makes no number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom_report.records import Report
from loom_report.render import text
from loom_report.render.tables import ALONE, Cell, Table, mark


def tables(report: Report) -> list[Table]:
    """The authors' own tables, one a benchmark: their lines down, arms across, in their scale and decimals."""
    drawn = []
    for benchmark, by_arm in report["official"].items():
        arms = [arm["name"] for arm in report["arms"] if arm["name"] in by_arm]
        table = Table(f"{benchmark}: the authors' own aggregation", ["line", "metric", *arms], n_left=2)
        lines: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
        for arm in arms:
            if isinstance(by_arm[arm], Mapping):
                table.notes.append(f"{arm}: no table, {text.one_line(str(by_arm[arm].get('error')))}")
                continue
            for line in by_arm[arm]:
                lines.setdefault((line["name"], line["metric"]), {})[arm] = line
        for (name, metric), cells in lines.items():
            shown = [_cell(cells.get(arm)) for arm in arms]
            table.rows.append([Cell(text.one_line(name)), Cell(text.one_line(metric)), *shown])
        every = [line for lines in by_arm.values() if not isinstance(lines, Mapping) for line in lines]
        if any(line.get("missing") for line in every):
            table.notes.append("! answers are missing and left out by the authors' rule")
        if any(line.get("low") is not None for line in every):
            table.notes.append(
                "[…]: 95 % interval; Δ: to dense over what both answered; *: p (Holm) < 0.05 among lines of its kind"
            )
        if any(mark(line.get("delta")) == "°" for line in every):
            table.notes.append(ALONE)
        for method in dict.fromkeys(str(line.get("interval")) for line in every if line.get("low") is None):
            if method.startswith("none: "):
                table.notes.append(f"no interval: {method[6:]}")
        table.notes += dict.fromkeys(text.one_line(line["note"], 300) for line in every if line.get("note"))
        drawn.append(table)
    return drawn


def _cell(line: Mapping[str, Any] | None) -> Cell:
    """A line's value with its interval, and the paired difference to the baseline with its own."""
    if line is None or line["value"] is None:
        return Cell(text.NONE)
    digits = line.get("digits", 2)
    shown = f"{line['value']:.{digits}f}" + (" !" if line.get("missing") else "") + _ends(line, digits)
    if delta := line.get("delta"):
        shown += f", Δ {_signed(delta['value'], digits)}{mark(delta)}" + _ends(delta, digits, sign=True)
    return Cell(shown)


def _ends(row: Mapping[str, Any], digits: int, *, sign: bool = False) -> str:
    if row.get("low") is None or row.get("high") is None:
        return ""
    low, high = (_signed(row[key], digits) if sign else f"{row[key]:.{digits}f}" for key in ("low", "high"))
    return f" [{low}, {high}]"


def _signed(value: float, digits: int) -> str:
    shown = f"{value:+.{digits}f}"
    return shown[1:] if float(shown) == 0 else shown.replace("-", "−")


def adds(report: Report, benchmark: str) -> bool:
    """True where the authors' table of a benchmark says more than the means of its tasks, which stand elsewhere."""
    known = {(row["task"], score["metric"]): score["score"] for row in report["totals"] for score in row["scores"]}
    for lines in report["official"][benchmark].values():
        for line in lines if not isinstance(lines, Mapping) else ():
            if (f"{benchmark}:{line['name']}", line["metric"]) not in known:
                return True
    return False
