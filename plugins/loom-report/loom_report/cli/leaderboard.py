"""`loom leaderboard`: several runs in rankings, with published figures as reference rows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from loom_report.cli.printing import emit, format_option


@click.command(short_help="Rank runs; show published figures beside them.")
@click.argument("runs", nargs=-1, metavar="RUN…", type=click.Path(path_type=Path))
@click.option(
    "--published",
    type=click.Choice(("matching", "all", "none")),
    default="matching",
    show_default=True,
    help="Published tables to show: those about a benchmark of these runs, all, or none.",
)
@format_option
def leaderboard(runs: tuple[Path, ...], published: str, form: str) -> int:
    """Rank RUNs that asked the same questions in the same way.

    Other settings, other protocols and simulated savings are rankings of their own. Published figures are shown below
    as reference and never ranked; without a RUN, only those.
    """
    from loom_core.run.store import RunFolder
    from loom_report.leaderboard import board, members
    from loom_report.published import tables as published_tables
    from loom_report.render.ranking import reference, tables

    folders = [member for run in runs for member in members(RunFolder(run))]
    rankings = board(folders)
    asked = {task["name"].partition(":")[0] for ranking in rankings for task in ranking["tasks"]}
    chosen = [] if published == "none" else published_tables(None if published == "all" or not runs else asked)
    facts = [f"{len(folders)} runs in {len(rankings)} rankings"] if runs else []
    data = {"rankings": rankings, "published": [asdict(one) for one in chosen]}
    emit(form, "leaderboard", facts, [], [*tables(rankings), *reference(chosen)], data)
    return 0
