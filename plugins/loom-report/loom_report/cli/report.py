"""`loom report`: write a run's report and show it, or print it in another format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click

from loom_core.cli.exits import console, say, say_data
from loom_core.contract.foreign import escaped
from loom_report.records import Report

FORMATS = ("table", "md", "json", "csv", "latex")


@click.command(short_help="Write and show the report of a run.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--html", is_flag=True, help="Write the files and print where report.html lies, without the table.")
@click.option(
    "--format",
    "form",
    default="table",
    show_default=True,
    metavar="|".join(FORMATS),
    help="Print this and write no file; table writes report.json, .md and .html too. Plugins may add formats.",
)
@click.option("--bundle", type=click.Path(path_type=Path), help="Write a .tar.gz to reproduce the run from, no report.")
def report(run: Path, html: bool, form: str, bundle: Path | None) -> int:
    """Report RUN: scores with intervals, paired differences to dense, cost. Works on partial and on running runs."""
    from loom_core.contract.errors import RunError, UsageError
    from loom_core.run.store import RunFolder
    from loom_report.build import build
    from loom_report.files import write

    folder = RunFolder(run)
    if bundle is not None:
        from loom_report.bundles import bundle as write_bundle

        say(f"{bundle}: {write_bundle(folder, bundle):,} bytes")
        return 0
    if html and form != "table":
        raise UsageError("--html and --format exclude each other", hint="leave one of them out")
    if html:
        write(folder)
        say(str(folder.report_html))
    elif form == "table":
        from loom_core.registry.plugins import installed
        from loom_core.run.identity import newer_scorers
        from loom_core.run.store import read_json
        from loom_report.render.terminal import show

        out = console()
        show(write(folder), out)
        for line in newer_scorers(read_json(folder.plan), installed()):
            out.print(f"{line}; `loom score {run}` scores it again", highlight=False, soft_wrap=True, markup=False)
        out.print(f"report: {folder.report_html}", highlight=False, soft_wrap=True, markup=False)
    else:
        text = printer(form)(build(folder)[0]).rstrip("\n")
        if not text:
            why = "no question or answer of it could be read, or the format has nothing to say of such a run"
            raise RunError("the report is empty in this format", where=f"{folder.path}, --format {form}", why=why)
        say_data(text)
    return 0


def printer(form: str) -> Callable[[Report], str]:
    """The function of a format from report.json's dict to text; plugins' formats are known by their spec's name."""
    from loom_report.render import markdown, tables

    known: dict[str, Callable[[Report], str]] = {
        "md": markdown.render,
        "json": lambda made: escaped(json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False)),
        "csv": tables.to_csv,
        "latex": tables.to_latex,
    }
    if form in known:
        return known[form]
    from loom_core.contract.errors import UsageError, nearest
    from loom_core.registry.plugins import installed

    catalog = installed()
    if form in catalog.reports:
        from loom_core.contract.guard import guarded

        made: Callable[[Report], str] = catalog.load(catalog.reports.get(form))

        def given(report: Report) -> str:
            with guarded(f"report format {form}"):
                return str(made(report))

        return given
    names = [*FORMATS, *(found.spec.name for found in catalog.reports)]
    raise UsageError(f"unknown report format {form!r}", where="--format", hint=nearest(form, names))
