"""BABILong's published averages beside what loom makes of the outputs in the authors' repository. Figures alone.

Printed: the table of the README's picture, booydar/babilong@7a6efee, images/babilong_evals_all.png: mean accuracy of
qa1 to qa5 at each length. Raw outputs: babilong_evals/ of the same commit, which holds one of the table's models; those
of the others are on another branch (predictions_06_2024) and on the hub.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from loom_parity import Cell, ParityContext

from loom_bench_babilong.benchmark import METRIC, Babilong
from loom_bench_babilong.plugin import EVALUATED, BabilongOptions
from loom_core.api import Graded, Prompt, Sample, segment

PICTURE = "github:booydar/babilong@7a6efee29f5cac03c3c410e6799c80fd2ffe3610:images/babilong_evals_all.png"
TABLE = "Mean accuracy of qa1 to qa5"
LENGTHS = ("0k", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k")
FULL = "instruction_yes_examples_yes_post_prompt_yes"
PRINTED: Mapping[str, tuple[str, ...]] = {
    "microsoft/Phi-3-mini-128k-instruct": ("64", "57", "55", "51", "50", "46", "42", "37", "7"),
}
"""Folder of the outputs (the model's name) to the figures of `LENGTHS`, printed without digits."""
MEAN = "45"
"""The model's figure over all lengths."""
FIRST_LINE = (
    "the figures printed come out where the whole first line of an answer is read (table below); metrics.py of this "
    "commit, and loom with it, reads the first sentence. The picture is older than that rule, it seems."
)


def cells(context: ParityContext) -> Iterator[Cell]:
    """A cell for each length, from the outputs of the full prompt, and the mean of the lengths; by both rules."""
    for model, figures in PRINTED.items():
        folder = context.root / "babilong_evals" / model
        found = list(_cells(context, model, folder, figures, TABLE, whole=True))
        by_line = list(_cells(context, model, folder, figures, f"{TABLE}, by first lines", whole=False))
        for cell, other in zip(found, by_line, strict=True):
            explained = cell.outcome != "equal" and other.outcome == "equal"
            yield replace(cell, why=FIRST_LINE) if explained else cell
        yield from by_line


def _cells(
    context: ParityContext, model: str, folder: Path, figures: Sequence[str], table: str, *, whole: bool
) -> Iterator[Cell]:
    graded = list(_graded(context, folder, whole=whole))
    lines = {line.name: line for line in Babilong(BabilongOptions(variant="official")).aggregate(graded)}
    files = f"{folder.relative_to(context.root).as_posix()}/*_{FULL}.csv"
    values: list[float] = []
    for length, printed in zip(LENGTHS, figures, strict=True):
        line = lines.get(f"avg {length}")
        cell = Cell(table=table, row=model, column=length, printed=printed, source=PICTURE)
        if line is not None and line.value is not None:
            values.append(line.value)
            cell = replace(cell, outputs=files, value=line.value, n=line.n)
        yield cell
    cell = Cell(table=table, row=model, column="avg", printed=MEAN, source=PICTURE)
    complete = len(values) == len(LENGTHS)
    yield replace(cell, outputs=files, value=fmean(values), n=len(graded)) if complete else cell


def _graded(context: ParityContext, folder: Path, *, whole: bool) -> Iterator[Graded]:
    """Each output of the full prompt, scored; whole: as it stands, otherwise its first line as one sentence."""
    for task in EVALUATED:
        for length in LENGTHS:
            for number, row in enumerate(_rows(folder / f"{task}_{length}_{FULL}.csv")):
                sample = Sample(
                    id=f"{task}-{length}-{number}",
                    task=task,
                    prompt=Prompt(segments=(segment("question", row["question"]),)),
                    references=(row["target"],),
                    level=length,
                    meta={"question": row["question"], "task": task},
                )
                # The metric ends at the first full stop: without any, it reads the line to its end.
                text = row["output"] if whole else row["output"].partition("\n")[0].replace(".", " ")
                scored = {METRIC: context.metrics[METRIC].score(text, sample)}
                yield Graded(task=task, sample=sample, repeat=0, scored=scored)


def _rows(file: Path) -> Sequence[Mapping[str, str]]:
    if not file.is_file():
        return ()
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
