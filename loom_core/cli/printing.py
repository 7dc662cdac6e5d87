"""How commands print tables: on the terminal, as Markdown or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from loom_core.report.tables import Table

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
        click.echo(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False))
    elif form == "md":
        click.echo(markdown(title, facts, banners, tables))
    else:
        _terminal(title, facts, banners, tables)


def markdown(title: str, facts: Sequence[str], banners: Sequence[Mapping[str, str]], tables: Sequence[Table]) -> str:
    """The same as Markdown."""
    from loom_core.report.markdown import escape, table

    lines = [f"# {escape(title)}", "", *(f"- {escape(fact)}" for fact in facts), ""]
    for banner in banners:
        lines += [f"> **{banner['kind']}:** {escape(banner['text'])}", ">"]
    for drawn in tables:
        lines += ["", *table(drawn)]
    return "\n".join(lines).rstrip("\n")


def _terminal(title: str, facts: Sequence[str], banners: Sequence[Mapping[str, str]], tables: Sequence[Table]) -> None:
    from rich.console import Console
    from rich.text import Text

    from loom_core.report.terminal import STYLES, draw

    console = Console()
    console.print(Text(title, style="bold"))
    for fact in facts:
        console.print(Text(fact, style="dim"))
    for banner in banners:
        console.print(Text(f"{banner['kind']}: {banner['text']}", style=STYLES[banner["kind"]]))
    for drawn in tables:
        for renderable in draw(drawn, console.width):
            console.print(renderable)
