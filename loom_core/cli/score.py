"""`loom score`: score the recorded answers of a run again, e.g. with a new metric version or a judge, and report."""

from __future__ import annotations

from pathlib import Path

import click

from loom_core.cli.exits import console, say


@click.command(short_help="Score the recorded answers of a run again.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--judge", metavar="SERVER:MODEL", help="The model that metrics ask for a judgement.")
@click.option("--judge-option", "judge_options", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option(
    "--metric-option",
    "metric_options",
    multiple=True,
    metavar="METRIC.NAME=VALUE",
    help="An option of a metric or its package. Repeatable.",
)
@click.option("--trust-settings", is_flag=True, help="Use the judge and the metric options of somebody else's run.")
def score(
    run: Path,
    judge: str | None,
    judge_options: tuple[str, ...],
    metric_options: tuple[str, ...],
    trust_settings: bool,
) -> int:
    """Score the recorded answers of RUN with the installed scorers, and write its report.

    The evaluated model is not asked. A judge is asked only for what is not recorded in RUN yet; without --judge the
    judge of the run goes on, and of a judge given to an earlier `loom score` the recorded judgements are used.
    """
    from loom_core import report
    from loom_core.options import assignments
    from loom_core.pipeline import continued_config
    from loom_core.plugins import installed
    from loom_core.report.terminal import show
    from loom_core.score import score_run
    from loom_core.selection import select
    from loom_core.store import RunFolder

    folder = RunFolder(run)
    given = {
        "judge": judge,
        "judge_options": assignments(",".join(judge_options), where="--judge-option") or None,
        "metric_options": assignments(",".join(metric_options), where="--metric-option") or None,
    }
    replaced = {k: v for k, v in given.items() if v is not None}
    if judge is not None:
        replaced = {"judge_options": {}, **replaced}
    selection = select(continued_config(folder, replaced, installed(), trusted=trust_settings, asks=False), installed())
    out = console()
    with folder.writing():
        n = score_run(folder, selection, note=lambda text: out.print(text, markup=False, highlight=False))
        show(report.write(folder), out)
    say(f"{n} answers scored")
    return 0
