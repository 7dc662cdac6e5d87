"""The commands `loom parity` and `loom reproduced`; what does the work is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command(short_help="Compare a benchmark with its authors' own program.")
@click.argument("benchmark", metavar="BENCH[@OPTIONS][:TASKS]")
@click.option(
    "--upstream",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Your checkout of the authors' repository. Its code is run.",
)
@click.option("--commit", help="The commit of FOLDER, where git cannot say it (an unpacked archive).")
@click.option("--seed", default=0, show_default=True, help="Seed of the generated answers.")
@click.option("--limit", "-n", type=click.IntRange(min=1), help="At most this many cases of each kind and name.")
@click.option("--lengths", "-l", metavar="4k,32k", help="Prompt lengths in tokens of the model.")
@click.option("--model", "-m", help="A model whose tokenizer makes the prompts; its weights are not read.")
@click.option("--server", "-s", help="The server that describes the model.  [default: hf]")
@click.option("--data-dir", help="Mirror folder of data files (or LOOM_DATA).")
@click.option("--python", help="The interpreter for the authors' code; loom must be installed there too.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds of patience with one case of theirs.")
@click.option("--out", type=click.Path(path_type=Path), help="Write every disagreement in full, as JSON lines.")
@click.option("--write", is_flag=True, help="Store the certificate in the benchmark's package.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def parity(benchmark: str, **flags: Any) -> int:
    """Compare BENCH with its authors' own program, case by case: prompts, scores, tables.

    The authors' functions run in a process of their own, from your checkout; loom's values are made here. Exit code 1
    where a difference is not explained.
    """
    from loom_parity.command import run

    return run(benchmark, **flags)


@click.command(short_help="Recompute the tables that a benchmark's authors published.")
@click.argument("benchmark", metavar="BENCH[@OPTIONS][:TASKS]")
@click.option(
    "--upstream",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Your checkout of the authors' repository, with its raw outputs. Nothing of it is run.",
)
@click.option("--commit", help="The commit of FOLDER, where git cannot say it (an unpacked archive).")
@click.option("--data-dir", help="Mirror folder of data files (or LOOM_DATA).")
@click.option("--write", is_flag=True, help="Store the cells in the benchmark's package.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def reproduced(benchmark: str, **flags: Any) -> int:
    """Recompute every published figure of BENCH whose raw outputs lie in the authors' repository.

    Exit code 1 where a figure does not come out and nothing explains it.
    """
    from loom_parity.recomputing import run

    return run(benchmark, **flags)
