"""`loom run`: start or continue a run, with a progress bar, and show its report."""

from __future__ import annotations

import sys
from typing import Any

import click

from loom_core.cli.settings import config_from, settings, study_from


@click.command(short_help="Run benchmarks on a model, or continue a run.")
@settings
@click.option("--workers", "-w", help="Worker processes, one model each.  [default: 1, or one for each device group]")
@click.option("--devices", metavar="0,1|0+1,2+3", help="Devices for workers, in turns; + joins those of one worker.")
@click.option("--python", metavar="PATH", help="The Python (or its environment's folder) that workers run under.")
@click.option("--out", "-o", help="The run folder.  [default: runs/NAME, named by what is asked]")
@click.option("--quiet", "-q", is_flag=True, help="No progress, only the result.")
def run(what: tuple[str, ...], quiet: bool, **flags: Any) -> int:
    """Run benchmarks on a model with and without accelerations, and report quality and cost.

    The same command again continues the same run: what is recorded is not asked again. Exit code 0: every
    planned question was answered; 3: some were not (run again to retry them), or a task or an arm was refused and
    the others ran; 1 and 2: an error.
    """
    from loom_core.cli.progress import progress_for
    from loom_core.config import RunConfig
    from loom_core.pipeline import Result
    from loom_core.pipeline import run as start
    from loom_core.plugins import installed
    from loom_core.report.terminal import show
    from loom_core.study import Joined, run_study

    study = study_from(what, flags)
    config = RunConfig() if study else config_from(what, flags)
    console, progress = progress_for(quiet=quiet)
    result: Joined | Result
    if study:
        result = run_study(study, installed(), sys.argv, progress)
    else:
        result = start(config, installed(), sys.argv, progress)
    show(result.report, console)
    _closing(result, console, again=what[0] if study else str(result.folder.path))
    return result.exit_code


def _closing(result: Any, console: Any, *, again: str) -> None:
    """Where the report lies, whether answers are empty, and how to go on with a run that is not complete."""
    from loom_core.report.banners import empty_answers

    outcome, folder = result.outcome, result.folder
    console.print(f"report: {folder.report_html}", highlight=False, soft_wrap=True, markup=False)
    for why in result.refused:
        console.print(f"refused, did not run: {why}", highlight=False, soft_wrap=True, markup=False)
    if told := empty_answers(result.report.get("state") or {}):
        console.print(told, highlight=False, soft_wrap=True, markup=False)
    if outcome.complete:
        return
    left = outcome.planned - outcome.ended - outcome.n_refused
    if not left:
        return  # what is refused once is refused again
    why = "stopped" if outcome.interrupted else f"{outcome.failed} failed"
    console.print(
        f"incomplete: {left} of {outcome.planned} answers are missing ({why}); what was answered is stored.\n"
        f"continue: loom run {again}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
