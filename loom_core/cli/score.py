"""`loom score`: score the recorded answers of a run again, or answers that were made elsewhere, and report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from loom_core.cli.exits import say, say_all


@click.command(short_help="Score the recorded answers of a run again, or answers made elsewhere.")
@click.argument("what", metavar="RUN | BENCH[@OPTIONS][:TASKS]")
@click.option(
    "--answers",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Answers made elsewhere: JSON lines {"id", "task", "answer"}, or a layout of the benchmark\'s authors.',
)
@click.option("--model-name", metavar="NAME", help="Who gave these answers.")
@click.option("--out", "-o", help="The run folder of these answers.  [default: runs/NAME]")
@click.option("--lengths", "-l", metavar="4k,32k", help="Prompt lengths, where the questions depend on them.")
@click.option(
    "--tokenizer", metavar="MODEL", help="The model whose tokenizer makes the questions; its weights are not read."
)
@click.option("--seed", help="Seed of generated samples.  [default: 0]")
@click.option("--data-dir", help="Mirror folder of data files (or LOOM_DATA).")
@click.option("--offline", is_flag=True, default=None, help="Download nothing.")
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
    what: str,
    answers: Path | None,
    model_name: str | None,
    judge: str | None,
    judge_options: tuple[str, ...],
    metric_options: tuple[str, ...],
    trust_settings: bool,
    **asked: Any,
) -> int:
    """Score the recorded answers of RUN with the installed scorers, and write its report.

    The evaluated model is not asked. A judge is asked only for what is not recorded in RUN yet; without --judge the
    judge of the run goes on, and of a judge given to an earlier `loom score` the recorded judgements are used.

    With --answers, the answers of FILE become a run folder like any other: scored, with intervals, and comparable by
    question with runs made here (loom compare). Exit code 3 where questions have no answer.
    """
    from loom_core.contract.errors import UsageError
    from loom_core.contract.options import assignments

    given = {
        "judge": judge,
        "judge_options": assignments(",".join(judge_options), where="--judge-option") or None,
        "metric_options": assignments(",".join(metric_options), where="--metric-option") or None,
    }
    given = {k: v for k, v in given.items() if v is not None}
    asked = {k: v for k, v in asked.items() if v is not None}
    if answers is not None:
        if not model_name:
            raise UsageError("--answers needs --model-name", where=f"--answers {answers}", hint="say who answered")
        tokenizer = asked.pop("tokenizer", "")
        return _elsewhere(what, answers, model_name, {**given, **asked}, tokenizer)
    if idle := [*asked, *(["model_name"] if model_name else [])]:
        flag = "--" + idle[0].replace("_", "-")
        raise UsageError(f"{flag} goes with --answers", where=what, hint="a run is scored as it was asked")
    return _again(Path(what), given, trusted=trust_settings)


def _elsewhere(what: str, answers: Path, model_name: str, given: Mapping[str, Any], tokenizer: str) -> int:
    """Score answers made elsewhere as a run of their own."""
    from loom_core.given import take
    from loom_core.registry.plugins import installed
    from loom_core.run.reporting import reporter

    taken = take(what, answers, model_name, given, installed(), sys.argv, say, tokenizer)
    report = reporter(installed())
    say_all(report.show(taken.report))
    say_all(report.closing(taken.folder, taken.report))
    say(f"{taken.recorded:,} answers of {answers.name} scored, {taken.missing:,} questions have none")
    if taken.n_unknown:
        say(f"{taken.n_unknown:,} answers match no question of this run: {', '.join(taken.unknown)}", err=True)
    return 3 if taken.missing else 0


def _again(run: Path, given: Mapping[str, Any], *, trusted: bool) -> int:
    """Score a run folder again."""
    from loom_core.pipeline import continued_config
    from loom_core.registry.plugins import installed
    from loom_core.run.reporting import reporter
    from loom_core.run.selection import select
    from loom_core.run.store import RunFolder
    from loom_core.score.scoring import score_run

    folder = RunFolder(run)
    replaced = {"judge_options": {}, **given} if "judge" in given else dict(given)
    selection = select(continued_config(folder, replaced, installed(), trusted=trusted, asks=False), installed())
    report = reporter(installed())
    with folder.writing():
        n = score_run(folder, selection, note=say)
        say_all(report.show(report.write(folder)))
    say(f"{n} answers scored")
    return 0
