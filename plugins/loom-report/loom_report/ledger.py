"""A run folder as compact rows: one per planned answer, with its state, values and costs. Streams; keeps no text.

Memory grows with the number of answers, never with their length or with the contexts. Knows the store; knows nothing of
statistics and of how a report looks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from loom_core.contract.border import LARGEST
from loom_core.contract.records import Plan, ResponseRecord
from loom_core.contract.types import Json
from loom_core.prompting.thinking import MARKS, UNFINISHED
from loom_core.run.store import Damage, Responses, RunFolder, read_json, read_lines
from loom_report.weighting import Steered, everything_asked

State: TypeAlias = Literal["answered", "error", "missing"]


class Question(NamedTuple):
    """What tables need of a sample. number: its place in the samples file."""

    number: int
    task: str
    id: str
    level: str
    length: int | None
    depth: float | None
    cluster: str | None
    group: str | None = None


class EvidenceLeft(NamedTuple):
    """Pieces of evidence of a question, those whole after augmentations, those whole after truncation too, and the
    share of their characters that the model saw."""

    n: int
    rewritten: int
    final: int
    share: float


class RewritingCost(NamedTuple):
    """What prompt augmentations took for a call, and the share of the context's tokens that they left."""

    seconds: float
    index_seconds: float
    calls: int
    read_tokens: int
    cost: float | None
    kept: float | None


class Call(NamedTuple):
    """What tables need of a recorded call. seconds: of the request; to_first_token and decoding are parts of it.

    empty: the answer, where the call ended one, holds nothing but white space. reasoned: it came with reasoning.
    marked: its text holds marks that models put around their thinking.
    given: the answer was not made by loom, and nothing is known of its times and tokens (the numbers here are 0).
    """

    batch: int
    forked: bool
    seconds: float
    to_first_token: float | None
    decoding: float | None
    n_in: int
    n_out: int
    n_cached: int
    n_dropped: int
    peak_bytes: int | None
    bytes_dense: int | None
    bytes_held: int | None
    kept: float | None
    saves: str | None
    cut_short: bool
    failure: str | None
    n_reasoning: int = 0
    unfinished: bool = False
    shared_seconds: float = 0.0
    tokens_held: float | None = None
    tokens_asked: float | None = None
    kept_asked: float | None = None
    bytes_asked: int | None = None
    rewriting: RewritingCost | None = None
    evidence: EvidenceLeft | None = None
    empty: bool = False
    reasoned: bool = False
    marked: bool = False
    turn: int = 0
    given: bool = False


class Answer(NamedTuple):
    """One planned answer: its question, repeat, state and calls (in order of their steps)."""

    key: str
    question: Question
    repeat: int
    state: State
    calls: tuple[Call, ...]


@dataclass
class Ledger:
    """A run's answers by (task, level, arm), its questions by (task, level), and its scores.

    values: by metric name and version, then by job key; an absent job was not scored, None says that no value exists.
    strangers: recorded jobs that are not in the plan. subset: how the questions of a run were sampled that was steered
    by the clock or by its intervals and has not asked all of them.
    """

    plan: Plan
    questions: dict[tuple[str, str], list[Question]] = field(default_factory=dict)
    answers: dict[tuple[str, str, str], list[Answer]] = field(default_factory=dict)
    values: dict[tuple[str, str], dict[str, float | None]] = field(default_factory=dict)
    damage: Damage = field(default_factory=Damage)
    strangers: int = 0
    n_invalid: int = 0
    sources: Calls | None = None
    subset: Steered | None = None

    def of(self, task: str, level: str | None, arm: str) -> list[Answer]:
        """The answers of one cell; of all levels where level is None."""
        if level is not None:
            return self.answers.get((task, level, arm), [])
        return [a for key, rows in self.answers.items() if key[0] == task and key[2] == arm for a in rows]

    def asked(self, task: str, level: str | None) -> list[Question]:
        """The questions of one level, those left out of the plan included; of all levels where level is None."""
        if level is not None:
            return self.questions.get((task, level), [])
        return [q for key, rows in self.questions.items() if key[0] == task for q in rows]


class Calls(Responses):
    """The recorded calls of a run with their numbers, read in one pass."""

    def __init__(self, path: Path) -> None:
        self._facts: dict[str, dict[int, Call]] = {}
        super().__init__(path)

    def add(self, offset: int, record: Mapping[str, Json]) -> None:
        """Take note of a record, and of its numbers where it is the one that counts."""
        super().add(offset, record)
        steps = self._offsets[record["job"]]
        if steps[record["step"]][0] == offset:
            self._facts.setdefault(sys.intern(record["job"]), {})[record["step"]] = call_from(
                cast(ResponseRecord, record)
            )

    def take(self, job: str) -> tuple[Call, ...]:
        """The calls of a job, by step, up to its last call; they are handed over and kept here no longer."""
        steps, end = self._facts.pop(job, {}), self._last_step(job)
        return tuple(steps[step] for step in sorted(steps) if end is None or step <= end)

    def state(self, job: str) -> State:
        """Whether a job was answered, failed, or was not (wholly) asked."""
        if self.failed(job):
            return "error"
        return "answered" if self.ended(job) else "missing"

    def jobs(self) -> Iterator[str]:
        """Every recorded job."""
        return iter(self._offsets)


def call_from(record: ResponseRecord) -> Call:
    """The numbers of a response record."""
    timing: Mapping[str, Any] = record.get("timing") or {}
    kv: Mapping[str, Any] = record.get("kv") or {}
    started, first, ended = timing.get("started", 0.0), timing.get("first_token"), timing.get("ended", 0.0)
    failed, evidence = record["finish"] == "error", record.get("evidence")
    return Call(
        batch=timing.get("batch", 1),
        forked=bool(timing.get("forked", False)),
        seconds=ended - started,
        to_first_token=None if first is None or failed else first - started,
        decoding=None if first is None or failed else ended - first,
        n_in=record.get("n_in", 0),
        n_out=record.get("n_out", 0),
        n_cached=record.get("n_cached", 0),
        n_dropped=record.get("n_dropped", 0),
        peak_bytes=record.get("peak_bytes"),
        bytes_dense=kv.get("bytes_dense"),
        bytes_held=kv.get("bytes_held"),
        kept=kv.get("kept"),
        saves=_shared(kv.get("saves")),
        shared_seconds=timing.get("shared_seconds", 0.0),
        tokens_held=kv.get("tokens_held"),
        tokens_asked=kv.get("tokens_asked"),
        kept_asked=kv.get("kept_asked"),
        bytes_asked=kv.get("bytes_asked"),
        cut_short=record["finish"] == "length",
        n_reasoning=record.get("n_reasoning") or 0,
        unfinished=UNFINISHED in record.get("notes", ()),
        failure=str(record.get("error") or "no reason given")[:2000] if failed else None,
        rewriting=_rewriting(record),
        evidence=EvidenceLeft(**evidence) if evidence else None,
        turn=record.get("turn") or 0,
        empty=not failed and not str(record["text"] if record.get("answer") is None else record["answer"]).strip(),
        reasoned=bool(record.get("reasoning")),
        marked=any(mark in record["text"] for mark in MARKS),
        given=bool(record.get("given")),
    )


def _rewriting(record: Mapping[str, Json]) -> RewritingCost | None:
    """What the prompt's rewriting took; None where no augmentation rewrites prompts."""
    if not (took := record.get("rewriting_cost")):
        return None
    facts = record.get("rewriting") or {}
    before, after = facts.get("tokens_before"), facts.get("tokens_after")
    return RewritingCost(**took, kept=after / before if before and after is not None else None)


def _shared(text: str | None) -> str | None:
    """One copy of a text that thousands of records repeat."""
    return None if text is None else sys.intern(text)


def read(folder: RunFolder, plan: Plan) -> Ledger:
    """The ledger of a run folder; whatever is not there yet is simply absent from it."""
    ledger = Ledger(plan)
    by_id: dict[tuple[str, str], Question] = {}
    for number, (_, row) in enumerate(read_lines(folder.samples, ledger.damage)):
        question = _question(number, row)
        by_id[question.task, question.id] = question
        ledger.questions.setdefault((question.task, question.level), []).append(question)
    calls = ledger.sources = Calls(folder.responses)
    ledger.damage.lines += calls.damage.lines
    ledger.damage.foreign += calls.damage.foreign
    planned: set[str] = set()
    for job in folder.read_jobs() if folder.jobs.exists() else ():
        planned.add(sys.intern(job.key))
        question = by_id.get((job.task, job.sample)) or Question(-1, job.task, job.sample, "all", None, None, None)
        key = sys.intern(job.key)
        answer = Answer(key, question, job.repeat, calls.state(key), calls.take(key))
        ledger.answers.setdefault((job.task, question.level, job.arm), []).append(answer)
    ledger.subset = _subset(folder)
    ledger.strangers = sum(1 for key in calls.jobs() if key not in planned)
    for name, version in sorted({(m["name"], m["version"]) for t in plan["tasks"] for m in t["metrics"]}):
        ledger.values[name, version] = _values(folder.scores(name, version), ledger)
    return ledger


def _subset(folder: RunFolder) -> Steered | None:
    record = read_json(folder.manifest).get("anytime") if folder.manifest.exists() else None
    return Steered(record) if record and not record.get("given_up") and not everything_asked(record) else None


def _question(number: int, row: Mapping[str, Json]) -> Question:
    level = row.get("level")
    return Question(
        number,
        sys.intern(row["task"]),
        row["id"],
        sys.intern("all" if level is None else str(level)),
        row.get("length"),
        row.get("depth"),
        row.get("cluster"),
        row.get("group"),
    )


def _values(path: Path, ledger: Ledger) -> dict[str, float | None]:
    """The newest value of each job; what is not a finite number becomes None and is counted."""
    values: dict[str, float | None] = {}
    for _, row in read_lines(path, ledger.damage):
        value = row.get("value")
        number = float(value) if isinstance(value, (int, float)) and abs(value) <= LARGEST else math.nan
        ledger.n_invalid += value is not None and not math.isfinite(number)
        values[sys.intern(row["key"])] = number if math.isfinite(number) else None
    return values
