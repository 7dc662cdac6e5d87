"""The other metrics of a task whose scores a judge gives, or whose first metric has no value everywhere.

Reads report.json's dict; a first metric without values must not hide those that have them.
"""

from __future__ import annotations

from loom_report.build import rows_of
from loom_report.records import Report, ReportTask
from loom_report.render import beside, text
from loom_report.render.tables import Cell, Table, answered


def other_metrics(report: Report, task: ReportTask) -> Table | None:
    """Arms × metrics but the first; None where there is no other, or none is judged and every answer has its value."""
    rows = [row for row in rows_of(report["totals"], task["name"]) if len(row["scores"]) > 1]
    judged = set((report.get("judge") or {}).get("metrics") or ())
    names = {f"{score['metric']}@{score['version']}" for row in rows for score in row["scores"]}
    if not rows or not (names & judged or any(row["scores"][0]["n_unscored"] for row in rows)):
        return None
    heads = ["arm"]
    for score in rows[0]["scores"][1:]:
        heads += [score["metric"], "n", "bounds"]
    table = Table(f"{task['name']}: other metrics", heads)
    for row in rows:
        cells = [Cell(text.one_line(row["arm"]))]
        for score in row["scores"][1:]:
            span = 1.0 if score["span"] is None else score["span"]
            shown = (text.score(score["score"], span), answered(row, score), beside.bounds(score, span))
            cells += map(Cell, shown)
        table.rows.append(cells)
    table.notes.append(beside.BOUNDS_NOTE)
    return table
