"""`loom run`: start or continue a run, with a progress bar, and show its report."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from loom_core.cli.exits import say, say_all
from loom_core.cli.settings import config_from, run_file, settings

if TYPE_CHECKING:
    from loom_core.pipeline import Outcomes


@click.command(short_help="Run benchmarks on a model, or continue a run.")
@settings
@click.option("--workers", "-w", help="Worker processes, one model each.  [default: 1, or one for each device group]")
@click.option("--devices", metavar="0,1|0+1,2+3", help="Devices for workers, in turns; + joins those of one worker.")
@click.option("--python", metavar="PATH", help="The Python (or its environment's folder) that workers run under.")
@click.option(
    "--executor",
    metavar="local|inline",
    help="inline: answer in this process, where breakpoints stop.  [default: local]",
)
@click.option("--out", "-o", help="The run folder.  [default: runs/NAME, named by what is asked]")
@click.option("--quiet", "-q", is_flag=True, help="No progress, only the result.")
def run(what: tuple[str, ...], quiet: bool, **flags: Any) -> int:
    """Run benchmarks on a model with and without accelerations, and report quality and cost.

    The same command again continues the same run: what is recorded is not asked again. Exit code 0: every
    planned question was answered; 3: some were not (run again to retry them), or a task or an arm was refused and
    the others ran; 1 and 2: an error.
    """
    from loom_core.cli.progress import progress_for
    from loom_core.pipeline import run as start
    from loom_core.registry.plugins import installed
    from loom_core.run.reporting import reporter

    catalog, progress = installed(), progress_for(quiet=quiet)
    file = run_file(what, flags)
    result: Outcomes
    if file is not None:
        result = file.run(catalog, sys.argv, progress)
    else:
        result = start(config_from(what, flags), catalog, sys.argv, progress)
    report = reporter(catalog)
    say_all(report.show(result.report))
    say_all(report.closing(result.folder, result.report))
    _closing(result, again=what[0] if file is not None else str(result.folder.path))
    return result.exit_code


def _closing(result: Outcomes, *, again: str) -> None:
    """What was refused, and how to go on with a run that is not complete."""
    outcome = result.outcome
    for why in result.refused:
        say(f"refused, did not run: {why}")
    if outcome.complete:
        return
    left = outcome.planned - outcome.ended - outcome.n_refused
    if not left:
        return  # what is refused once is refused again
    why = "stopped" if outcome.interrupted else f"{outcome.failed} failed"
    say(
        f"incomplete: {left} of {outcome.planned} answers are missing ({why}); what was answered is stored.\n"
        f"continue: loom run {again}"
    )
