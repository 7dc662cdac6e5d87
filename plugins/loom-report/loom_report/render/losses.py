"""The table of where answers were lost: by retrieval, by truncation, or by the model. Knows report.json's dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom_report.build import rows_of
from loom_report.records import Report, ReportTask
from loom_report.render import rewritten, text
from loom_report.render.tables import Cell, Table

HEADS = ("arm", "score", "recall", "lost: retrieval", "truncation", "model", "with", "without", "kept", "time")


def losses(report: Report, task: ReportTask) -> Table | None:
    """Per arm, what is missing to the best score, by cause; None where every prompt reached the model as it was."""
    rows = rows_of(report["totals"], task["name"])
    if all(rewritten.recall(row) == text.NONE and rewritten.seconds(row) == text.NONE for row in rows):
        return None
    called = any((row["cost"]["rewriting"] or {}).get("calls") for row in rows)
    table = Table(f"{task['name']}: where answers were lost", (*HEADS, "own calls") if called else HEADS)
    for row in rows:
        cells = _row(row, task["span"])
        table.rows.append(cells if called else cells[:-1])
    table.notes.append("lost: what is missing to the best score, by the first step that did not hand all evidence on")
    table.notes.append(
        "retrieval: or any other rewriting; with, without: scores where the model saw all evidence or not"
    )
    own = "time, own calls" if called else "time"
    table.notes.append(f"kept: share of context tokens; {own}: the augmentations' own for an answer, on average")
    return table


def _row(row: Mapping[str, Any], span: float) -> list[Cell]:
    seen, cost = row.get("evidence") or {}, row["cost"]["rewriting"] or {}
    lost, counts = seen.get("lost") or {}, seen.get("n_lost") or {}
    cells = [Cell(text.one_line(row["arm"])), Cell(text.score((row["scores"] or [{}])[0].get("score"), span))]
    cells.append(Cell(text.share(seen.get("recall"))))
    for name in ("retrieval", "truncation", "model"):
        shown = text.score(lost.get(name), span)
        cells.append(
            Cell(f"{shown} (n {counts[name]})" if counts.get(name) else shown, "" if lost.get(name) else "quiet")
        )
    cells += [Cell(text.score(seen.get(f"score_{name}"), span)) for name in ("with", "without")]
    calls = cost.get("calls")
    kept = [
        text.share(cost.get("kept")),
        text.duration(cost.get("seconds")),
        text.NONE if calls is None else f"{calls:.3g}",
    ]
    return [*cells, *map(Cell, kept)]
