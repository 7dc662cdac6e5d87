"""The authors' table: means by task and length, means by length, effective length. Knows graded samples, no prompt.

Source: NVIDIA/RULER README and scripts/eval/evaluate.py: scores times 100 with two decimals; the effective length is
the longest whose mean over the tasks is at least 85.6, which is Llama-2-7B's at 4k. The weighted means are the paper's
(arXiv 2404.06654): weights rise, or fall, linearly with the length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loom_bench_ruler.plugin import TASKS
from loom_core.api import Graded, Line, number, rows_of

THRESHOLD = 85.6
METRIC = "ruler"


def table(rows: Sequence[Graded], prefix: str) -> list[Line]:
    """The lines of every variant among the rows: loom's tasks carry `prefix`, and never meet the official ones."""
    lines = []
    for mark in ("", prefix):
        of_variant = [row for row in rows if row.task.startswith(prefix) == bool(mark)]
        if of_variant:
            lines += _variant(of_variant, mark)
    return lines


def _variant(rows: Sequence[Graded], mark: str) -> list[Line]:
    by_cell: dict[tuple[str, str], list[Graded]] = {}
    for row in rows:
        by_cell.setdefault((row.task, row.sample.level or ""), []).append(row)
    levels = sorted({level for _, level in by_cell}, key=number)
    tasks = [mark + name for name in TASKS if any(task == mark + name for task, _ in by_cell)]
    lines = [_mean(task, level, by_cell[task, level]) for task in tasks for level in levels if (task, level) in by_cell]
    cells = {line.name: line for line in lines}
    means = {
        level: _over_tasks([cells[f"{task} {level}"] for task in tasks if f"{task} {level}" in cells], level, mark)
        for level in levels
    }
    return [*lines, *means.values(), *_summary(means, mark)]


def _mean(task: str, level: str, rows: Sequence[Graded]) -> Line:
    found = [scored for row in rows for scored in row.scored.items()]
    values = [scored.value for _, scored in found if scored.value is not None]
    return Line(
        name=f"{task} {level}",
        metric=found[0][0] if found else METRIC,
        value=100 * sum(values) / len(values) if values else None,
        n=len(values),
        missing=len(rows) - len(values),
        rows=list(rows),
    )


def _over_tasks(lines: Sequence[Line], level: str, mark: str) -> Line:
    """The mean over tasks; without all thirteen it says so, and where a task has no value there is none."""
    # The authors average the numbers they print, which have two decimals.
    values = [round(line.value, 2) for line in lines if line.value is not None]
    whole = len(values) == len(lines)
    return Line(
        name=f"{mark}mean {level}",
        metric=METRIC,
        value=sum(values) / len(values) if values and whole else None,
        n=sum(line.n for line in lines),
        missing=sum(line.missing for line in lines),
        note="" if len(values) == len(TASKS) else f"mean of {len(values)} of {len(TASKS)} tasks",
        rows=rows_of(lines),
    )


def _summary(means: Mapping[str, Line], mark: str) -> list[Line]:
    values = [line.value for line in means.values()]
    n, missing = sum(line.n for line in means.values()), sum(line.missing for line in means.values())
    rows = rows_of(means.values())
    notes = {line.note for line in means.values()} - {""}
    note = "; ".join(sorted(notes))
    held = [number(level) for level, line in means.items() if line.value is not None and line.value >= THRESHOLD]
    known = [value for value in values if value is not None]
    lines = [
        Line(
            name=f"{mark}effective length",
            metric="tokens",
            value=float(max(held, default=0)) if known else None,
            n=n,
            missing=missing,
            digits=0,
            note="; ".join(
                part for part in (f"longest of {', '.join(means)} with a mean of at least {THRESHOLD}", note) if part
            ),
            rows=rows,
        )
    ]
    if len(values) > 1 and len(known) == len(values):
        for name, weights in (("rising", range(1, len(known) + 1)), ("falling", range(len(known), 0, -1))):
            mean = sum(w * v for w, v in zip(weights, known, strict=True)) / sum(weights)
            line = f"{mark}weighted mean, {name}"
            lines.append(Line(name=line, metric=METRIC, value=mean, n=n, missing=missing, note=note, rows=rows))
    return lines
