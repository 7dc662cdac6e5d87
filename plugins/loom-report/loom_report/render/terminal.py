"""A report on the terminal: banners, then a table of arms for each task. Knows rich; fits any width from 60 columns.

No text of a model, a plugin or a file is read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from loom_report.records import Report
from loom_report.render import authors, tables
from loom_report.render.losses import losses
from loom_report.render.metrics import other_metrics
from loom_report.render.text import one_line
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
TONES = {"": "", "worse": "red", "better": "green", "quiet": "dim"}
LEFT_SHARE = 0.45
PADDING = 3
EDGES = 2
NARROWEST = 22


def show(report: Report, console: Console) -> None:
    """Print a report."""
    for renderable in render(report, console.width):
        console.print(renderable)


class Shown:
    """A report as a renderable of rich."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from render(self._report, options.max_width)


def render(report: Report, width: int) -> Iterator[RenderableType]:
    """What a report looks like in `width` columns, from top to bottom."""
    yield Text.assemble((one_line(report["name"]), "bold"), f"  {one_line(tables.who(report))}, {report['protocol']}")
    for banner in report["banners"]:
        yield Text(f"{banner['kind']}: {banner['text']}", style=STYLES[banner["kind"]])
    whole = tables.overview(report)
    if whole is not None and len(whole.heads) <= 5:
        yield from draw(whole, width)
    for task in report["tasks"]:
        if task.get("unavailable"):
            continue
        yield from draw(tables.headline(report, task), width)
        for more in (other_metrics(report, task), tables.by_level(report, task)):
            if more is not None:
                yield from draw(more, width)
        lost = losses(report, task)
        if lost is not None:
            yield from draw(lost, width)
    for benchmark, own in zip(report["official"], authors.tables(report), strict=True):
        if authors.adds(report, benchmark):
            yield from draw(own, width)
    if any(tables.short_labels(arm) for arm in report["arms"]):
        yield Text("[R] frees memory, [S] savings are simulated, [Q] the question steers what is kept", style="dim")
    if len(report["arms"]) > 1:
        yield Text(
            "* differs from dense: paired test, p < 0.05 after Holm's correction over the table's kind", style="dim"
        )
        if tables.any_alone(report):
            yield Text(tables.ALONE, style="dim")
    for note in report["notes"]:
        yield Text(f"note: {one_line(note, 400)}", style="dim")


def draw(table: tables.Table, width: int) -> Iterator[RenderableType]:
    """A table, in parts of as many columns as fit, each with the first column; notes below the last one."""
    yield Text()
    sizes = [max([len(head), *(len(row[i].text) for row in table.rows)]) for i, head in enumerate(table.heads)]
    beside = width - EDGES - sum(size + PADDING for size in sizes[1:])
    first = beside if beside >= NARROWEST else max(NARROWEST, int(width * LEFT_SHARE))
    names = [_wrapped(row[0].text, first) for row in table.rows]
    left = max([len(table.heads[0]), *(len(line) for name in names for line in name.split("\n"))])
    for shown in _parts(sizes, width - left - EDGES):
        drawn = RichTable(
            title=Text(table.title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
        )
        drawn.add_column(Text(table.heads[0]), no_wrap=True)
        for i in shown:
            drawn.add_column(Text(table.heads[i]), justify="left" if i < table.n_left else "right", no_wrap=True)
        for name, row in zip(names, table.rows, strict=True):
            drawn.add_row(Text(name), *(Text(row[i].text, style=TONES[row[i].tone]) for i in shown))
        yield drawn
    for note in table.notes:
        yield Text(f"  {note}", style="dim")


def _parts(sizes: Sequence[int], room: int) -> list[list[int]]:
    """The columns after the first in runs that fit into `room`; a column too wide for it stands alone."""
    parts: list[list[int]] = [[]]
    used = 0
    for i, size in enumerate(sizes[1:], 1):
        if parts[-1] and used + size + PADDING > room:
            parts.append([])
            used = 0
        parts[-1].append(i)
        used += size + PADDING
    return parts


def _wrapped(name: str, width: int) -> str:
    """A name on lines of at most `width`, broken after the separators of arms where there are any."""
    lines = [""]
    for piece in re.split(r"(?<=[,:+ ])", name):
        if len(lines[-1]) + len(piece) > width and lines[-1]:
            lines.append("")
        while len(piece) > width:
            lines[-1:] = [piece[:width], ""]
            piece = piece[width:]
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
