"""Rankings of runs and published reference rows as tables. Knows the rows of `leaderboard` and `published`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loom_report.published import Published
from loom_report.render import text
from loom_report.render.tables import Cell, Table

SAVES = {"real": "real savings and baselines", "simulated": "simulated savings"}


def tables(rankings: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table a ranking."""
    found = []
    for ranking in rankings:
        title = f"{SAVES[ranking['saves']]}, {ranking['protocol']}, settings {ranking['settings']}"
        several = len(ranking["tasks"]) > 1
        heads = ["model · arm", "rank", "run", *(["average"] if several else [])]
        table = Table(title, [*heads, *(f"{task['name']} · {task['metric']}" for task in ranking["tasks"])])
        table.rows += [_row(row, ranking["tasks"], several) for row in ranking["rows"]]
        if several:
            table.notes.append("average: of the tasks' primary scores, each within its metric's range, times 100")
        if any(row["rank"] is None for row in ranking["rows"]):
            table.notes.append("no rank: not every planned answer is there, or a metric has no bounds")
        found.append(table)
    if found:
        found[-1].notes.append(
            "a ranking holds only runs that asked the same questions in the same way; ranks order point scores: "
            "`loom compare` says which differences are more than noise"
        )
    return found


def _row(row: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]], several: bool) -> list[Cell]:
    name = text.one_line(f"{row['model']} · {row['arm']}")
    cells = [Cell(name), Cell("–" if row["rank"] is None else str(row["rank"])), Cell(text.one_line(row["run"], 40))]
    if several:
        cells.append(Cell(text.NONE if row["average"] is None else f"{100 * row['average']:.1f}"))
    for task in tasks:
        score = row["scores"].get(task["name"], {})
        between = text.interval(score.get("low"), score.get("high"), task["span"])
        cells.append(Cell(f"{text.score(score.get('score'), task['span'])} {between}".strip()))
    return cells


def reference(published: Sequence[Published]) -> list[Table]:
    """The published tables, marked as such; nothing of them is ranked."""
    found = []
    for one in published:
        table = Table(f"published figures: {one.short}, Table {one.number}: {one.title}", one.columns)
        table.n_left = sum(all(isinstance(row[i], str) for row in one.rows) for i in range(min(3, len(one.columns))))
        for row in one.rows:
            table.rows.append([Cell(value if isinstance(value, str) else f"{value:g}", "quiet") for value in row])
        table.notes.append(
            f"published figures, not measured with loom and not ranked: {one.source}, Table {one.number}"
        )
        if one.note:
            table.notes.append(one.note)
        found.append(table)
    return found
