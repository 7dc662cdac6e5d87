"""A run folder as notebooks, reports and boards read it: typed, read-only, streaming. Knows no statistics.

`open_run(path)` gives a `Run`; nothing here writes, and a run that is still going may be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from loom_core.contract.errors import RunError
from loom_core.contract.records import Manifest, Plan
from loom_core.contract.types import Job, Json, Sample
from loom_core.run.store import Responses, RunFolder, Samples, read_json, read_lines


class Mean(NamedTuple):
    """A metric's mean over the answers of a task under an arm that have a value. value: None where there are none.

    n: those answers; n_planned: all that were planned.
    """

    task: str
    arm: str
    metric: str
    value: float | None
    n: int
    n_planned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One planned answer. state: "answered", "error" or "missing". text: what was scored; None where nothing came.

    seconds: of its last call, from the request to its end; to_first_token: within it. kept: share of the prompt's KV
    slots that were held; None where a server does not tell. scores: by metric; None says that no value exists, an
    absent metric that it was not scored.
    """

    key: str
    task: str
    sample: str
    arm: str
    repeat: int
    level: str | None
    length: int | None
    depth: float | None
    state: str
    text: str | None
    error: str | None
    n_in: int | None
    n_out: int | None
    seconds: float | None
    to_first_token: float | None
    kept: float | None
    scores: Mapping[str, float | None]


class Run:
    """A run folder, read-only."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {', '.join(self.tasks)}; {', '.join(self.arms)})"

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._folder.path

    @cached_property
    def plan(self) -> Plan:
        """What was planned: plan.json (docs/run-folder.md)."""
        plan: Plan = read_json(self._folder.plan)
        return plan

    @cached_property
    def manifest(self) -> Manifest:
        """How it was made: manifest.json (docs/run-folder.md)."""
        manifest: Manifest = read_json(self._folder.manifest)
        return manifest

    @property
    def report(self) -> Mapping[str, Json] | None:
        """report.json, where loom-report has written one: scores with intervals, differences, cost."""
        path = self._folder.report_json
        report: Mapping[str, Json] | None = read_json(path) if path.exists() else None
        return report

    @property
    def tasks(self) -> tuple[str, ...]:
        """The full names of its tasks, in the order of the plan."""
        return tuple(task["name"] for task in self.plan["tasks"])

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of its arms, dense first."""
        return tuple(arm["name"] for arm in self.plan["arms"])

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics of its tasks."""
        return tuple(dict.fromkeys(metric["name"] for task in self.plan["tasks"] for metric in task["metrics"]))

    def jobs(self) -> Iterator[Job]:
        """Every planned job."""
        return self._folder.read_jobs()

    def sample(self, task: str, sample: str) -> Sample:
        """A sample with its whole prompt and its references. Raises RunError where it is not there."""
        return self._samples.full(task, sample)

    def answers(self) -> Iterator[Answer]:
        """Every planned answer in the order of the plan, streaming."""
        responses, values = Responses(self._folder.responses), self._values()
        for job in self.jobs():
            light = self._samples.light(job.task, job.sample)
            records = responses.of(job.key)
            state = "error" if responses.failed(job.key) else "answered" if responses.ended(job.key) else "missing"
            yield _answer(job, light, records[-1] if records else None, state, values)

    def means(self) -> Iterator[Mean]:
        """The mean of each metric by task and arm, over the answers that have ended and have a value."""
        planned: dict[tuple[str, str], list[str]] = {}
        for job in self.jobs():
            planned.setdefault((job.task, job.arm), []).append(job.key)
        ended, values = Responses(self._folder.responses), self._values()
        for task in self.plan["tasks"]:
            for metric in task["metrics"]:
                of_metric = values.get(metric["name"], {})
                for arm in self.arms:
                    keys = planned.get((task["name"], arm), [])
                    known = [x for key in keys if ended.ended(key) and (x := of_metric.get(key)) is not None]
                    mean = math.fsum(known) / len(known) if known else None
                    yield Mean(task["name"], arm, metric["name"], mean, len(known), len(keys))

    def rows(self) -> list[dict[str, Json]]:
        """The answers as flat rows: the fields of `Answer`, and a column for each metric."""
        rows = []
        for answer in self.answers():
            row = {name: getattr(answer, name) for name in Answer.__slots__ if name != "scores"}
            rows.append(row | {name: answer.scores.get(name) for name in self.metrics})
        return rows

    def frame(self) -> Any:
        """`rows` as a pandas DataFrame. Raises ImportError without pandas."""
        import pandas  # type: ignore[import-untyped]

        return pandas.DataFrame(self.rows())

    @cached_property
    def _samples(self) -> Samples:
        return self._folder.read_samples()

    def _values(self) -> dict[str, dict[str, float | None]]:
        """By metric and job key, the newest value; what is not a finite number is None."""
        found: dict[str, dict[str, float | None]] = {}
        for name, version in {(m["name"], m["version"]) for task in self.plan["tasks"] for m in task["metrics"]}:
            values = found.setdefault(name, {})
            for _, row in read_lines(self._folder.scores(name, version)):
                value = row.get("value")
                finite = isinstance(value, (int, float)) and math.isfinite(value)
                values[row["key"]] = float(value) if finite and value is not None else None
        return found


def open_run(path: str | Path) -> Run:
    """The run in a folder. Raises RunError where there is none."""
    folder = RunFolder(Path(path))
    if not folder.prepared:
        why = "it holds no plan.json" if folder.path.is_dir() else "there is no such folder"
        raise RunError("not a run folder", where=str(path), why=why, hint="loom run makes them below runs/")
    return Run(folder)


def _answer(
    job: Job,
    sample: Sample,
    record: Mapping[str, Json] | None,
    state: str,
    values: Mapping[str, Mapping[str, float | None]],
) -> Answer:
    timing = (record or {}).get("timing") or {}
    started = timing.get("started")
    told = record if record is not None and state == "answered" else {}
    answer = told.get("answer")
    return Answer(
        key=job.key,
        task=job.task,
        sample=job.sample,
        arm=job.arm,
        repeat=job.repeat,
        level=None if sample.level is None else str(sample.level),
        length=sample.length,
        depth=sample.depth,
        state=state,
        text=told.get("text") if answer is None else answer,
        error=(record or {}).get("error"),
        n_in=told.get("n_in"),
        n_out=told.get("n_out"),
        seconds=_since(started, timing.get("ended")) if told else None,
        to_first_token=_since(started, timing.get("first_token")) if told else None,
        kept=(told.get("kv") or {}).get("kept"),
        scores={name: by_key[job.key] for name, by_key in values.items() if job.key in by_key},
    )


def _since(started: float | None, at: float | None) -> float | None:
    """Seconds between two moments; None where either is not known."""
    return None if started is None or at is None else at - started
