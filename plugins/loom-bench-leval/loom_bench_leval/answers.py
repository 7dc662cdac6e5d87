"""Answers in the authors' own layout: Predictions/METRIC/MODEL/TASK.pred.jsonl. Knows that layout and samples' order.

Source: OpenLMLab/LEval, Baselines/*-test.py (writing) and Evaluation/auto_eval.py (reading), as facts: a file holds a
task, one JSON object a question in the order of the data; the answer stands under the first key of the first row that
holds "_pred", and rows of other evaluations (judges, people) are passed over. An answer to sci_fi has both turns in one
text, "first [fact: second]".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from loom_bench_leval.plugin import TASKS
from loom_bench_leval.wording import kind_of
from loom_core.api import DataError, GivenAnswer, Json, Sample, Task

SUFFIX = ".pred.jsonl"
MARK = "_pred"
SCORED = ("exam", "f1", "rouge")


def read(
    path: Path, tasks: Sequence[Task], samples: Callable[[Task], Iterator[Sample]]
) -> Iterator[GivenAnswer] | None:
    """The answers of a file TASK.pred.jsonl, or of a folder of such files; None for anything else.

    A row is the question of its place among the samples in the order of the data, and has its reference ("gt"). Where a
    file has other references, fewer or more rows than the data, DataError names the first place that differs.
    """
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path] if path.name.endswith(SUFFIX) else []
    named = {file.name.removesuffix(SUFFIX): file for file in files}
    if not named.keys() & set(TASKS):
        return None
    chosen = [(task, named[task.name]) for task in tasks if task.name in named]
    return (answer for task, file in chosen for answer in _answers(task, file, list(samples(task))))


def _answers(task: Task, file: Path, samples: Sequence[Sample]) -> Iterator[GivenAnswer]:
    rows = [(number, row) for number, row in _rows(file) if row.get("evaluation") in SCORED]
    key = next((name for name in rows[0][1] if MARK in name), None) if rows else None
    if key is None:
        raise DataError(
            "a file of L-Eval answers has none", where=str(file), why=f"no key with {MARK!r} in a scored row"
        )
    ordered = sorted(samples, key=_place)
    if len(rows) != len(ordered):
        why = f"{len(rows)} answers, and the task has {len(ordered)} questions"
        raise DataError("a file of L-Eval answers is not whole", where=str(file), why=why)
    for (number, row), sample in zip(rows, ordered, strict=True):
        where = f"{file}, line {number}"
        text = row.get(key)
        if not isinstance(text, str):
            raise DataError("an answer is not a text", where=where, why=f"expected a text under {key!r}, got {text!r}")
        if row.get("gt") != sample.references[0]:
            why = f"its reference is not that of {sample.id}: the questions come in another order, or are others"
            raise DataError("a file of L-Eval answers belongs to other questions", where=where, why=why)
        yield GivenAnswer(id=sample.id, task=task.name, texts=_turns(task, text), place=f"{file.name}, line {number}")


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, Json]]]:
    """The objects of a JSON-lines file with their line numbers."""
    for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError("a line is not JSON", where=f"{file}, line {number}", why=str(error)) from error
        if not isinstance(row, dict):
            raise DataError("a line is not a JSON object", where=f"{file}, line {number}")
        yield number, row


def _place(sample: Sample) -> tuple[int, int]:
    """Document and question: a sample's id ends in both."""
    document, question = sample.id.rsplit("-", 2)[1:]
    return int(document), int(question)


def _turns(task: Task, text: str) -> tuple[str, ...]:
    """The turns of an answer; of sci_fi two, where the text has a second one."""
    if kind_of(task.name) != "truth":
        return (text,)
    first, mark, second = text.partition(" [fact: ")
    return (first, second.removesuffix("]")) if mark else (text,)
