"""A report on the terminal: banners, then a table of arms for each task. Knows rich; fits 100 columns.

No text of a model, a plugin or a file is read as markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from loom_core.report import tables
from loom_core.report.text import one_line
from loom_core.types import Json

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
TONES = {"": "", "worse": "red", "better": "green", "quiet": "dim"}
LEVELS_A_TABLE = 7


def show(report: Mapping[str, Json], console: Console) -> None:
    """Print a report."""
    for renderable in render(report):
        console.print(renderable)


def render(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What a report looks like, from top to bottom."""
    model, server = report["model"]["name"], report["server"]["name"]
    yield Text.assemble(
        (one_line(report["name"]), "bold"), f"  {one_line(str(model))} on {one_line(str(server))}, {report['protocol']}"
    )
    for banner in report["banners"]:
        yield Text(f"{banner['kind']}: {banner['text']}", style=STYLES[banner["kind"]])
    whole = tables.overview(report)
    if whole is not None and len(whole.heads) <= 5:
        yield from _tables(whole)
    for task in report["tasks"]:
        if task.get("unavailable"):
            continue
        yield from _tables(tables.headline(report, task))
        levels = tables.by_level(report, task)
        if levels is not None:
            yield from _tables(levels)
    if any(tables.short_labels(arm) for arm in report["arms"]):
        yield Text("[R] frees memory, [S] savings are simulated, [Q] the question steers what is kept", style="dim")
    if len(report["arms"]) > 1:
        yield Text(
            "* differs from dense: paired test, p < 0.05 after Holm's correction over the table's kind", style="dim"
        )
    for note in report["notes"]:
        yield Text(f"note: {one_line(note, 400)}", style="dim")


def _tables(table: tables.Table) -> Iterator[RenderableType]:
    """A table in parts of so many columns that each fits; notes below the last one."""
    yield Text()
    heads = list(table.heads)
    is_headline = "KV held" in heads
    step = len(heads) if is_headline else LEVELS_A_TABLE
    for start in range(1, max(2, len(heads)), step):
        shown = [0, *range(start, min(len(heads), start + step))]
        drawn = RichTable(
            title=Text(table.title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for i in shown:
            left = i < table.n_left
            drawn.add_column(
                Text(heads[i]),
                justify="left" if left else "right",
                overflow="fold",
                no_wrap=not left,
            )
        for row in table.rows:
            drawn.add_row(*(Text(row[i].text, style=TONES[row[i].tone]) for i in shown))
        yield drawn
    for note in table.notes:
        yield Text(f"  {note}", style="dim")
