"""A report as Markdown: the tables of the terminal with more columns, for repositories, issues and appendices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loom_report.records import Report
from loom_report.render import authors, charts, svg, tables
from loom_report.render.budgets import budgets
from loom_report.render.losses import losses
from loom_report.render.metrics import other_metrics
from loom_report.render.text import NONE, count, one_line, percent_depth, score

from loom_core.run.absent import absence

_ESCAPED = str.maketrans({c: "\\" + c for c in "\\`*_[]<>#|~"} | {"&": "&amp;"})


def escape(value: str) -> str:
    """A text on one line in which nothing is Markdown or HTML."""
    return one_line(value, 2000).translate(_ESCAPED)


def render(report: Report) -> str:
    """The whole report."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {escape(report['name'])}"
    yield ""
    yield from _facts(report)
    yield ""
    for banner in report["banners"]:
        yield f"> **{banner['kind']}:** {escape(banner['text'])}"
        yield ">"
    yield ""
    whole = tables.overview(report)
    if whole is not None:
        yield from table(whole)
    radar = charts.capabilities(report, svg.styles(report["arms"]))
    if radar is not None:
        yield from table(radar.table)
    for task in report["tasks"]:
        yield f"## {escape(task['name'])}"
        yield ""
        if task.get("unavailable"):
            why = absence(task)
            yield escape(why[0].upper() + why[1:])
            yield ""
            continue
        yield from table(tables.headline(report, task, wide=True))
        if (asked := budgets(report, task)) is not None:
            yield from table(asked)
        for more in (other_metrics(report, task), tables.by_level(report, task)):
            if more is not None:
                yield from table(more)
        lost = losses(report, task)
        if lost is not None:
            yield from table(lost)
        for grid in report["grids"]:
            if grid["task"] == task["name"]:
                yield from table(grid_table(grid, task["span"]))
    for own in authors.tables(report):
        yield from table(own)
    if report["cells"]:
        yield "## All cells"
        yield ""
        yield from table(tables.every_cell(report))
    for note in report["notes"]:
        yield f"- {escape(note)}"


def _facts(report: Report) -> Iterator[str]:
    run, state = report["run"], report["state"]
    yield f"- model: {escape(str(report['model']['name']))}, digest `{str(report['model']['digest'])[:12]}`"
    yield f"- server: {escape(str(report['server']['name']))} {escape(str(report['server'].get('version', '')))}"
    yield f"- protocol: {report['protocol']}"
    yield f"- command: {escape(' '.join(run['command'] or [])) or NONE}"
    yield f"- loom {escape(str(run['loom']))}, {escape(str(run['created']))}, seed {run['seed']}"
    yield (
        f"- answers: {count(state['n_answered'])} of {count(state['n_planned'])} planned, "
        f"{state['n_error']} failed, {state['n_missing']} missing, {state['n_skipped']} skipped"
    )


def grid_table(grid: Mapping[str, Any], span: float) -> tables.Table:
    """A heat map as numbers: depths down, levels across."""
    drawn = tables.Table(f"{grid['arm']}: score by depth and length", ["depth", *grid["levels"]])
    for depth, row in zip(grid["depths"], grid["values"], strict=True):
        texts = ["" if cell is None else score(cell["score"], span) for cell in row]
        drawn.rows.append([tables.Cell(percent_depth(depth)), *(tables.Cell(value) for value in texts)])
    return drawn


def table(drawn: tables.Table) -> Iterator[str]:
    """A table in GitHub's dialect, its title above and its notes below."""
    yield f"**{escape(drawn.title)}**"
    yield ""
    yield _row(drawn.heads)
    yield "|" + "".join(" :-- |" if i < drawn.n_left else " --: |" for i in range(len(drawn.heads)))
    for row in drawn.rows:
        yield _row([cell.text for cell in row])
    yield ""
    for note in drawn.notes:
        yield f"- {escape(note)}"
    if drawn.notes:
        yield ""


def _row(texts: Sequence[str]) -> str:
    return "|" + "".join(f" {escape(value)} |" for value in texts)
