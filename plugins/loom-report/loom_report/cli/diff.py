"""`loom diff`: which settings of two runs differ, next to the difference of their scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loom_report.cli.printing import emit, format_option


@click.command(short_help="Show which settings of two runs differ.")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@format_option
def diff(first: Path, second: Path, form: str) -> int:
    """Show in which settings the runs FIRST and SECOND differ, and the difference of their scores.

    Compared are the model and its tokenizer and template, the server, options, prompts (BOS, truncation), tasks and
    their data, methods, library versions and the machine. Greyed: what no one asked for.
    """
    from loom_core.contract.errors import RunError
    from loom_core.run.settings_diff import differing, settings
    from loom_core.run.store import RunFolder
    from loom_report.cli.compare import side_line
    from loom_report.compare import compare, read
    from loom_report.render.comparison import knob_table, tables

    one, other = read(RunFolder(first)), read(RunFolder(second))
    knobs = differing(settings(one.plan, one.manifest), settings(other.plan, other.manifest))
    drawn = [knob_table(knobs, one.name, other.name)]
    banners: list[dict[str, str]] = []
    made: dict[str, Any] | None = None
    try:
        made = compare(one, other)
    except RunError as error:
        banners.append({"kind": "warning", "text": f"No scores side by side: {error.what} ({error.why})."})
    if made is not None:
        banners += made["banners"]
        drawn += tables(made)[:1]
    facts = [side_line("first", one.summary()), side_line("second", other.summary())]
    data = {"knobs": [knob._asdict() for knob in knobs], "compared": made, "banners": banners}
    emit(form, f"{one.name} → {other.name}", facts, banners, drawn, data)
    return 0
