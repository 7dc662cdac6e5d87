"""`loom reproduce`: make a run again from its folder or its bundle, and compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from loom_report.cli.printing import emit, format_option


@click.command(short_help="Make a run again, and compare.")
@click.argument("source", metavar="RUN_OR_BUNDLE", type=click.Path(path_type=Path, exists=True))
@click.option("--out", "-o", type=click.Path(path_type=Path), help="The new folder.  [default: runs/NAME-again]")
@click.option("--model", "-m", help="Where the same model lies on this machine.")
@click.option("--data-dir", help="Mirror folder of data files (or LOOM_DATA).")
@click.option("--workers", "-w", type=click.IntRange(1), help="Worker processes, one model each.  [default: 1]")
@click.option("--server-option", "server_options", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--model-option", "model_options", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--judge", metavar="SERVER:MODEL", help="The model that metrics ask for a judgement.")
@click.option("--judge-option", "judge_options", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--metric-option", "metric_options", multiple=True, metavar="METRIC.NAME=VALUE", help="Repeatable.")
@click.option("--python", metavar="PATH", help="The Python (or its environment's folder) that workers run under.")
@click.option("--trust-settings", is_flag=True, help="Use the endpoints, files and code that the bundle names.")
@click.option("--quiet", "-q", is_flag=True, help="No progress, only the result.")
@format_option
def reproduce(
    source: Path,
    out: Path | None,
    model: str | None,
    data_dir: str | None,
    workers: int | None,
    quiet: bool,
    form: str,
    trust_settings: bool,
    **said: Any,
) -> int:
    """Run again what a run asked, into a new folder, and compare the two question by question.

    Refused before the model is asked anything where model, data, tasks, methods or prompts are not the same; other
    libraries and another machine are named. A bundle is made by `loom report RUN --bundle FILE`. Of somebody else's
    bundle only what it asks is taken: endpoints, names of keys, files, programs and code are yours to say here.
    """
    from loom_report.bundles import opened
    from loom_report.cli.compare import side_line
    from loom_report.compare import compare, read
    from loom_report.render.comparison import knob_table, tables

    from loom_core.cli.progress import progress_for
    from loom_core.registry.plugins import installed
    from loom_lab.reproduce import reproduce as again

    name = source.resolve().name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    folder = out or Path("runs") / f"{name}-again"
    given = {"out": str(folder), "workers": workers or 1, "data_dir": data_dir}
    given |= {"model": model} if model else {}
    given |= {name: _said(name, value) for name, value in said.items() if value not in (None, ())}
    progress = progress_for(quiet=quiet or form == "json")
    with opened(source) as before:
        made = again(before, given, installed(), sys.argv, progress, trusted=trust_settings)
        compared = compare(read(before), read(made.result.folder))
    facts = [side_line("first", {**compared["first"], "name": name}), side_line("again", compared["second"])]
    drawn = [*tables(compared), knob_table(made.circumstances, name, folder.name)]
    data = {"compared": compared, "circumstances": [knob._asdict() for knob in made.circumstances]}
    emit(form, f"{name}, made again", facts, compared["banners"], drawn, data)
    return made.result.exit_code


def _said(name: str, value: Any) -> Any:
    """A setting as the command line gives it: tables of options as names and values."""
    from loom_core.contract.options import assignments

    return assignments(",".join(value), where="--" + name[:-1].replace("_", "-")) if isinstance(value, tuple) else value
