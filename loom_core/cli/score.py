"""`loom score`: score the recorded answers of a run again, e.g. with a new metric version, and report."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Score the recorded answers of a run again.")
@click.argument("run", type=click.Path(path_type=Path))
def score(run: Path) -> int:
    """Score the recorded answers of RUN with the installed scorers, and write its report. Asks no model."""
    from rich.console import Console

    from loom_core import report
    from loom_core.pipeline import stored_config
    from loom_core.plugins import installed
    from loom_core.report.terminal import show
    from loom_core.score import score_run
    from loom_core.selection import select
    from loom_core.store import RunFolder

    folder = RunFolder(run)
    selection = select(stored_config(folder), installed())
    with folder.writing():
        n = score_run(folder, selection)
        show(report.write(folder), Console())
    click.echo(f"{n} answers scored")
    return 0
