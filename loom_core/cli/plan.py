"""`loom plan`: what would run, what is refused and why, overflow and memory; runs nothing and writes nothing."""

from __future__ import annotations

import json
from typing import Any

import click

from loom_core.cli.settings import config_from, settings


@click.command(short_help="Show what would run, what is refused and why.")
@settings
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def plan(what: tuple[str, ...], form: str, **flags: Any) -> int:
    """Show what `loom run` with the same arguments would do. Needs no GPU and loads no weights."""
    from loom_core.errors import LoomError
    from loom_core.pipeline import open_data
    from loom_core.plan import make_plan, refuse
    from loom_core.plugins import installed
    from loom_core.selection import select

    selection = select(config_from(what, flags), installed())
    made = make_plan(selection, selection.describe(), open_data(selection.config), None)
    if form == "json":
        click.echo(json.dumps(made, indent=1, ensure_ascii=False))
    else:
        _show(made, dict(selection.config.origins))
    try:
        refuse(made)
    except LoomError as error:
        click.echo(f"\nrefused: {error}", err=True)
        return error.exit_code
    return 0


def _show(made: dict[str, Any], origins: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console, model = Console(), made["model"]
    window = f"{model['window']:,} tokens" if model["window"] else "unknown"
    console.print(f"model   {model['name']} on {made['server']['name']}, window {window}", highlight=False)
    for arm in made["arms"]:
        labels = [f"{p['saves']} saving" if p["saves"] != "none" else "" for p in arm["parts"]]
        console.print(f"arm     {arm['name']} {' '.join(filter(None, labels))}", highlight=False)
    table = Table(box=None, pad_edge=False)
    for name in ("task", "level", "samples", "tokens", "too long"):
        table.add_column(name, justify="left" if name in ("task", "level") else "right")
    for task in made["tasks"]:
        for level in task["levels"]:
            tokens = f"{level['tokens_min']:,}-{level['tokens_max']:,}"
            table.add_row(task["name"], level["level"], str(level["n"]), tokens, str(level["n_over"] or ""))
        if task["unavailable"]:
            table.add_row(task["name"], "unavailable here", "0", "", "")
    console.print(table)
    console.print(f"{made['n_jobs']} answers from {made['n_samples']} samples", highlight=False)
    if made["longest_kv_bytes"]:
        console.print(f"dense KV of the longest prompt: {made['longest_kv_bytes'] / 1e6:,.1f} MB", highlight=False)
    for note in made["notes"]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    for name, origin in origins.items():
        console.print(f"[dim]{name} from {origin}[/]", highlight=False)
