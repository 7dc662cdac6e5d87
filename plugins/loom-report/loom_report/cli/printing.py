"""How commands print tables: on the terminal, as Markdown or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from loom_core.cli.exits import console, say, say_json
from loom_report.render.tables import Table

FORMATS = ("table", "md", "json")
format_option = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print."
)


def emit(
    form: str,
    title: str,
    facts: Sequence[str],
    banners: Sequence[Mapping[str, str]],
    tables: Sequence[Table],
    data: Any,
) -> None:
    """Print a title, facts, banners and tables; as JSON, `data` alone."""
    if form == "json":
        say_json(data)
    elif form == "md":
        say(markdown(title, facts, banners, tables))
    else:
        _terminal(title, facts, banners, tables)


def markdown(title: str, facts: Sequence[str], banners: Sequence[Mapping[str, str]], tables: Sequence[Table]) -> str:
    """The same as Markdown."""
    from loom_report.render.markdown import escape, table

    lines = [f"# {escape(title)}", "", *(f"- {escape(fact)}" for fact in facts), ""]
    for banner in banners:
        lines += [f"> **{banner['kind']}:** {escape(banner['text'])}", ">"]
    for drawn in tables:
        lines += ["", *table(drawn)]
    return "\n".join(lines).rstrip("\n")


def _terminal(title: str, facts: Sequence[str], banners: Sequence[Mapping[str, str]], tables: Sequence[Table]) -> None:
    from rich.text import Text

    from loom_report.render.terminal import STYLES, draw

    out = console()
    out.print(Text(title, style="bold"))
    for fact in facts:
        out.print(Text(fact, style="dim"))
    for banner in banners:
        out.print(Text(f"{banner['kind']}: {banner['text']}", style=STYLES[banner["kind"]]))
    for drawn in tables:
        for renderable in draw(drawn, out.width):
            out.print(renderable)
