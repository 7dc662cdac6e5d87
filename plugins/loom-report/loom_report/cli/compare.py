"""`loom compare`: two runs by the questions they share: scores, paired tests, agreement token for token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from loom_report.cli.printing import emit, format_option


@click.command(short_help="Compare two runs question by question.")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--arms", nargs=2, multiple=True, metavar="FIRST SECOND", help="Pair these arms; repeatable.")
@click.option("--by-name", is_flag=True, help="Also pair questions of equal name whose content differs (another seed).")
@format_option
def compare(first: Path, second: Path, arms: tuple[tuple[str, str], ...], by_name: bool, form: str) -> int:
    """Compare the runs FIRST and SECOND over the questions both answered, across servers, versions or machines.

    Differences are second minus first, with an exact paired test and Holm's correction. Arms of equal names are paired.
    """
    from loom_core.run.store import RunFolder
    from loom_report.compare import compare as compared, read
    from loom_report.render.comparison import tables

    made = compared(read(RunFolder(first)), read(RunFolder(second)), arms=arms, by_name=by_name)
    facts = [side_line("first", made["first"]), side_line("second", made["second"])]
    facts.append("which settings differ: loom diff FIRST SECOND")
    emit(form, f"{made['first']['name']} → {made['second']['name']}", facts, made["banners"], tables(made), made)
    return 0


def side_line(label: str, side: Mapping[str, Any]) -> str:
    """One line on a run of a comparison."""
    answers = f"{side['n_answered']} of {side['n_planned']} answers"
    made = f", made {side['created']}" if side["created"] else ""
    return f"{label}: {side['name']}, {side['model']} on {side['server']}, {side['protocol']}, {answers}{made}"
