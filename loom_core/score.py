"""Recorded responses to scores, by the benchmark's official rule. Reads the store, writes one file a metric version.

A scorer that raises costs its sample the value, never the sample: the reason stands in the score's detail.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from loom_core import official
from loom_core.contracts import Benchmark, Graded, Metric
from loom_core.conversation import response_from
from loom_core.keys import plain
from loom_core.manifest import redact, secrets
from loom_core.selection import Chosen, Selection
from loom_core.store import Responses, RunFolder, to_line, write_json
from loom_core.types import Job, Json, Response, Sample, Score, Scored, Task


def score_run(folder: RunFolder, selection: Selection, progress: Callable[[], None] = lambda: None) -> int:
    """Score every ended job anew; returns how many answers were scored. Each scores file is replaced whole.

    Writes the authors' own tables beside them (`official.json`: by benchmark and arm, see `contracts.Line`).
    """
    writers: dict[Path, _Writer] = {}
    tables: dict[tuple[str, str], list[Graded]] = {}
    n = 0
    try:
        for chosen, task, job, row in _graded(folder, selection):
            tables.setdefault((chosen.name, job.arm), []).append(row)
            if not row.answered:
                continue
            for score in _scores(selection, task, job, row.scored):
                path = folder.scores(score.metric, score.metric_version)
                if path not in writers:
                    writers[path] = _Writer(path)
                writers[path].write(plain(score))
            n += 1
            progress()
    except BaseException:
        for writer in writers.values():
            writer.discard()
        raise
    for writer in writers.values():
        writer.finish()
    write_json(folder.official, official.tables(selection, tables))
    return n


def _graded(folder: RunFolder, selection: Selection) -> Iterator[tuple[Chosen, Task, Job, Graded]]:
    """Every planned job with its scores, streaming; samples of a group are held until the group is whole."""
    responses, samples = Responses(folder.responses), folder.read_samples()
    metrics = {name: selection.metrics(task) for _, task, name in selection.tasks()}
    hidden = secrets()
    groups: dict[tuple[str, str, int, str], list[tuple[Chosen, Task, Job, Graded]]] = {}
    sample: Sample | None = None
    for job in folder.read_jobs():
        chosen, task = selection.task(job.task)
        # The arms and repeats of a sample follow each other in the plan: they share one record.
        if sample is None or (sample.task, sample.id) != (job.task, job.sample):
            sample = samples.light(job.task, job.sample)
        scored: Mapping[str, Scored] = {}
        if answered := responses.ended(job.key):
            answers = [_answer(record) for record in responses.of(job.key)]
            scored = _scored(chosen, sample, answers, metrics[job.task], hidden)
        row = Graded(task=task.name, sample=sample, repeat=job.repeat, scored=scored, answered=answered)
        if sample.group is None:
            yield chosen, task, job, row
        else:
            groups.setdefault((job.task, job.arm, job.repeat, sample.group), []).append((chosen, task, job, row))
    for members in groups.values():
        chosen = members[0][0]
        together = _together(chosen.benchmark, [row for *_, row in members], hidden)
        for (_, task, job, row), given in zip(members, together, strict=True):
            yield chosen, task, job, replace(row, scored=given)


def _together(benchmark: Benchmark, rows: list[Graded], hidden: list[str]) -> list[Mapping[str, Scored]]:
    """The scores of a group; where its scorer raises, each sample loses its values and says why."""
    try:
        given = list(benchmark.score_group(rows))
        if len(given) != len(rows):
            raise ValueError(f"score_group gave {len(given)} results for {len(rows)} samples")
    except Exception as error:  # noqa: BLE001 - as for a single sample
        reason = Scored(value=None, detail={"error": redact(f"{type(error).__name__}: {error}", hidden)})
        return [dict.fromkeys(row.scored, reason) for row in rows]
    # A metric that the group's rule does not touch keeps the value of the sample alone.
    return [
        {name: _finite(value) for name, value in {**row.scored, **one}.items()}
        for row, one in zip(rows, given, strict=True)
    ]


class _Writer:
    """A file that appears whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path, self._partial = path, path.with_name(path.name + ".partial")
        self._file = self._partial.open("w", encoding="ascii")

    def write(self, record: Mapping[str, Json]) -> None:
        self._file.write(to_line(record))

    def finish(self) -> None:
        self._file.close()
        os.replace(self._partial, self._path)

    def discard(self) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)


def _scores(selection: Selection, task: Task, job: Job, scored: Mapping[str, Scored]) -> list[Score]:
    return [
        Score(
            key=job.key,
            metric=found.spec.name,
            metric_version=found.spec.version,
            value=scored[found.spec.name].value,
            detail={"extracted": scored[found.spec.name].extracted, **scored[found.spec.name].detail},
        )
        for found in selection.metric_specs(task)
    ]


def _answer(record: Mapping[str, Json]) -> Response:
    """The response as scored: with the strategy's answer where one was made of it."""
    response = response_from(record)
    return response if record["answer"] is None else replace(response, text=record["answer"])


def _scored(
    chosen: Chosen, sample: Sample, answers: list[Response], metrics: Mapping[str, Metric], hidden: list[str]
) -> dict[str, Scored]:
    try:
        given = chosen.benchmark.score(sample, answers, metrics)
    except Exception as error:  # noqa: BLE001 - a scorer's failure is a fact about this sample, recorded with it
        reason = Scored(value=None, detail={"error": redact(f"{type(error).__name__}: {error}", hidden)})
        return dict.fromkeys(metrics, reason)
    missing = Scored(value=None, detail={"error": "the benchmark gave no value for this metric"})
    return {name: _finite(given.get(name, missing)) for name in metrics}


def _finite(scored: Scored) -> Scored:
    """The score; without its value where that is no finite number, which no mean and no file could hold."""
    if scored.value is None or math.isfinite(scored.value):
        return scored
    return replace(scored, value=None, detail={**scored.detail, "error": f"the scorer gave {scored.value}"})
