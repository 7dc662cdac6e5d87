"""Answers in the authors' own layout: TASK_LENGTH_….csv, as `babilong_evals/` holds them. Knows it and samples' order.

Source: booydar/babilong, notebooks and babilong/collect_results.py, as facts: a file holds a task at a length, a row
for each record of the released data, with target, output and question; the first column, unnamed, counts records.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from loom_bench_babilong.plugin import TASKS
from loom_core.api import DataError, GivenAnswer, Sample, Task, UsageError

SUFFIX = ".csv"
COLUMNS = ("target", "output", "question")


def read(
    path: Path, tasks: Sequence[Task], samples: Callable[[Task], Iterator[Sample]]
) -> Iterator[GivenAnswer] | None:
    """The answers of a file TASK_LENGTH_….csv, or of a folder of such files of one setting; None for anything else.

    A row is the record that its first column counts. Where its question or target is not that record's, DataError names
    the row; a folder with two files of one task and length is refused by UsageError.
    """
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path] if path.suffix == SUFFIX else []
    named: dict[tuple[str, str], Path] = {}
    for file in files:
        name, _, rest = file.stem.partition("_")
        if name not in TASKS:
            continue
        cell = (name, rest.partition("_")[0])
        if cell in named:
            why = f"{named[cell].name} and {file.name} answer the same questions"
            raise UsageError(
                "a folder of several settings", where=f"--answers {path}", why=why, hint="keep one of them"
            )
        named[cell] = file
    return _answers(named, tasks, samples) if named else None


def _answers(
    named: Mapping[tuple[str, str], Path], tasks: Sequence[Task], samples: Callable[[Task], Iterator[Sample]]
) -> Iterator[GivenAnswer]:
    for task in tasks:
        if not any(name == task.name for name, _ in named):
            continue
        levels: dict[str, list[Sample]] = {}
        for sample in samples(task):
            levels.setdefault(sample.level or "", []).append(sample)
        for (name, level), file in named.items():
            if name == task.name and level in levels:
                yield from _of_file(task, file, sorted(levels[level], key=_number))


def _of_file(task: Task, file: Path, records: Sequence[Sample]) -> Iterator[GivenAnswer]:
    with file.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream)
        if absent := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
            raise DataError("a file of BABILong answers lacks columns", where=str(file), why=", ".join(absent))
        for at, row in enumerate(rows):
            place = f"row {at + 1}"
            count = row.get("", str(at))
            if not count.isdecimal() or int(count) >= len(records):
                why = f"it counts record {count}, and there are {len(records)}"
                raise DataError(
                    "a file of BABILong answers belongs to other questions", where=f"{file}, {place}", why=why
                )
            sample = records[int(count)]
            if row["target"] != sample.references[0] or row["question"].strip() != sample.meta["question"]:
                why = f"question and target are not those of {sample.id}"
                raise DataError(
                    "a file of BABILong answers belongs to other questions", where=f"{file}, {place}", why=why
                )
            yield GivenAnswer(id=sample.id, task=task.name, texts=(row["output"] or "",), place=f"{file.name}, {place}")


def _number(sample: Sample) -> int:
    """A record's number: a sample's id ends in it."""
    return int(sample.id.rpartition("-")[2])
