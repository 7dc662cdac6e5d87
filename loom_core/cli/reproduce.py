"""`loom reproduce`: make a run again from its folder or its bundle, and compare."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from loom_core.cli.printing import emit, format_option


@click.command(short_help="Make a run again, and compare.")
@click.argument("source", metavar="RUN_OR_BUNDLE", type=click.Path(path_type=Path, exists=True))
@click.option("--out", "-o", type=click.Path(path_type=Path), help="The new folder.  [default: runs/NAME-again]")
@click.option("--model", "-m", help="Where the same model lies on this machine.")
@click.option("--data-dir", help="Mirror folder of data files (or LOOM_DATA).")
@click.option("--workers", "-w", type=click.IntRange(1), help="Worker processes, one model each.  [default: 1]")
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
) -> int:
    """Run again what a run asked, into a new folder, and compare the two question by question.

    Refused before the model is asked anything where model, data, tasks, methods or prompts are not the same; other
    libraries and another machine are named. A bundle is made by `loom report RUN --bundle FILE`.
    """
    from loom_core.cli.compare import side_line
    from loom_core.cli.progress import progress_for
    from loom_core.compare import compare, read
    from loom_core.plugins import installed
    from loom_core.report.comparison import knob_table, tables
    from loom_core.reproduce import opened
    from loom_core.reproduce import reproduce as again

    name = source.resolve().name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    folder = out or Path("runs") / f"{name}-again"
    given = {"out": str(folder), "workers": workers or 1, "data_dir": data_dir}
    given |= {"model": model} if model else {}
    _, progress = progress_for(quiet=quiet or form == "json")
    with opened(source) as before:
        made = again(before, given, installed(), sys.argv, progress)
        compared = compare(read(before), read(made.result.folder))
    facts = [side_line("first", {**compared["first"], "name": name}), side_line("again", compared["second"])]
    drawn = [*tables(compared), knob_table(made.circumstances, name, folder.name)]
    data = {"compared": compared, "circumstances": [knob._asdict() for knob in made.circumstances]}
    emit(form, f"{name}, made again", facts, compared["banners"], drawn, data)
    return made.result.exit_code
