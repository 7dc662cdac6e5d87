"""Planned keys minus recorded keys, through worker processes, into the store. The parent alone writes.

A dead worker is replaced and its jobs handed out again; a job over which workers keep dying is recorded as an error.
Knows processes and keys; no model, no benchmark, no score.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from loom_core.contract.errors import LoomError, ModelError
from loom_core.contract.keys import call_key, plain
from loom_core.contract.types import Job, Json, Response, Sample, Timing
from loom_core.registry.names import DENSE, arm_to_json
from loom_core.run.absent import reason
from loom_core.run.agenda import Agenda, Bundle
from loom_core.run.events import misfit as event_misfit
from loom_core.run.executors import Executor, Local, Worker
from loom_core.run.job_source import Everything, JobSource
from loom_core.run.manifest import redact, redacted, secrets_of
from loom_core.run.placement import Placement, place
from loom_core.run.selection import Selection
from loom_core.run.store import Responses, RunFolder
from loom_core.run.writing import Appender, recording

SILENCE_SECONDS = 180.0
"""A worker that gives no sign of life for this long is taken for dead."""
ATTEMPTS = 3
"""Deaths over one job alone before it is recorded as an error."""
DEATHS_IN_A_ROW = 10
"""Deaths without any answer between them before the run gives up."""
DEFAULT_BUNDLE = 64
TEXTS = ("text", "answer", "reasoning", "error", "notes")
"""What of a record came from a model or an endpoint, and may repeat a secret of this machine."""


class Progress(Protocol):
    """What watches a run."""

    def begin(self, total: int, done: int) -> None:
        """Generation starts: jobs in all, jobs already ended."""

    def response(self, record: Mapping[str, Json]) -> None:
        """A response was recorded."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def end(self) -> None:
        """Generation is over."""


@dataclass
class Outcome:
    """How generation went. interrupted: the user asked to stop. refused: arms that the server refused, with its error;
    n_refused: the answers that this leaves out.
    """

    planned: int = 0
    ended: int = 0
    failed: int = 0
    interrupted: bool = False
    n_refused: int = 0
    refused: dict[str, LoomError] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    workers: list[Json] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True if every planned job ended."""
        return self.ended == self.planned


class Runner:
    """One generation phase over one run folder, whose lock the caller holds."""

    def __init__(
        self,
        folder: RunFolder,
        selection: Selection,
        model_digest: str,
        progress: Progress,
        source: JobSource | None = None,
        placement: Placement | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._folder, self._selection, self._progress = folder, selection, progress
        self._source = source or Everything(folder)
        self._placement = placement or place(selection.config)
        self._model_digest, self._hidden = model_digest, secrets_of(selection.config)
        self._arms = {arm.name: arm for arm in selection.arms}
        self._executor = executor or Local()
        self._busy: dict[Worker, Bundle | None] = {}
        self._idle: list[Worker] = []
        self._recorded = Responses(folder.responses)
        self._samples = folder.read_samples()
        self._interrupts, self._deaths, self._started = 0, 0, 0
        self._remarks: set[str] = set()
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Answer what the job source asks for. Raises the worker's own error when a model cannot be opened."""
        if damage := str(self._recorded.damage):
            self._note(damage)
        left = self._source.next(self._recorded)
        self._count()
        if not left:
            return self.outcome
        workers = max(1, min(self._placement.workers, self._source.total if self._source.more else len(left)))
        self._agenda = Agenda(left, size=self._bundle_size(), workers=workers)
        self._progress.begin(self._source.total, self.outcome.ended)
        self._out = Appender(self._folder.responses)
        # Python hands signals to its main thread alone: a run in another one, a server's, is not stopped by them.
        heard = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        before = {sign: signal.signal(sign, self._interrupt) for sign in heard}
        try:
            for number in range(1, workers + 1):
                self._start(number, workers)
            while self._busy:
                self._step(workers)
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)
            for worker in list(self._busy):
                worker.kill()
            self._source.end()
            self._progress.end()
            self._out.close()
        self._count()
        self.outcome.interrupted = self._interrupts > 0
        return self.outcome

    def _count(self) -> None:
        """How many jobs were asked for so far, and what became of them."""
        jobs = self._source.asked()
        keys = [job.key for job in jobs]
        refused = self.outcome.refused
        self.outcome.n_refused = sum(job.arm in refused and not self._recorded.ended(job.key) for job in jobs)
        self.outcome.planned = len(keys)
        self.outcome.ended = sum(map(self._recorded.ended, keys))
        self.outcome.failed = sum(map(self._recorded.failed, keys))

    def _bundle_size(self) -> int:
        batch = getattr(self._selection.server_options, "batch", None)
        return 2 * batch if isinstance(batch, int) else DEFAULT_BUNDLE

    def _start(self, number: int, workers: int) -> None:
        with recording(self._folder.logs):
            self._folder.logs.mkdir(exist_ok=True)
        self._started += 1
        order = {"op": "open", "config": self._selection.config.to_json(), "model_digest": self._model_digest}
        log = self._folder.logs / f"worker-{number}.log"
        worker = self._executor.start(
            number, order, log, hidden=self._hidden, placement=self._placement, workers=workers
        )
        self._busy[worker] = None

    def _interrupt(self, *_: object) -> None:
        """A signal handler: takes note only, for it may run in the middle of a write to a worker."""
        self._interrupts += 1
        self._executor.interrupt()

    def _step(self, workers: int) -> None:
        """Handle one event, or look for workers that fell silent."""
        try:
            worker, event = self._executor.next(1.0)
        except queue.Empty:
            for worker in list(self._busy):
                if time.monotonic() - worker.last_sign > SILENCE_SECONDS:
                    self._note(
                        f"worker {worker.number} gave no sign of life for {SILENCE_SECONDS:.0f} s and was killed"
                    )
                    worker.kill()
            return
        if worker is None:
            for busy in list(self._busy):
                busy.stop() if self._interrupts == 1 else busy.kill()
            return
        if worker not in self._busy:
            return
        if problem := event_misfit(event, worker.ready) or self._unasked(worker, event):
            self._misbehaved(worker, problem)
            return
        op = event["op"]
        if op == "ready":
            worker.ready = True
            self.outcome.workers.append(redacted({"number": worker.number, **event["info"]}, self._hidden))
            self._hand_out(worker)
        elif op == "response":
            self._record(worker, event["record"])
        elif op == "done":
            self._busy[worker] = None
            self._hand_out(worker)
        elif op == "refused":
            self._refuse(worker, LoomError.from_json(event["error"]))
        elif op == "failed":
            self._failed(worker, LoomError.from_json(event["error"]), bool(event.get("permanent")))
        elif op == "gone":
            self._gone(worker, workers)
        self._settle(workers)

    def _settle(self, workers: int) -> None:
        """Idle workers get what was given back, or the next batch once this one is answered; or they are let go."""
        if not self._idle:
            return
        if not len(self._agenda) and self._source.more and not self._interrupts:
            if any(self._busy.values()):
                return
            left = [job for job in self._source.next(self._recorded) if job.arm not in self.outcome.refused]
            self._agenda = Agenda(left, size=self._bundle_size(), workers=workers)
        idle, self._idle = self._idle, []
        for worker in idle:
            if worker in self._busy:
                self._hand_out(worker)

    def _hand_out(self, worker: Worker) -> None:
        bundle = None if self._interrupts else self._agenda.take()
        self._busy[worker] = bundle
        if bundle is None and self._source.more and not self._interrupts:
            self._idle.append(worker)
            return
        if bundle is None:
            del self._busy[worker]
            worker.stop()
            worker.close(seconds=30)
            return
        jobs = [
            {
                "job": plain(job),
                "sample": plain(self._shown(self._samples.full(job.task, job.sample))),
                "replay": self._recorded.of(job.key),
            }
            for job in bundle.jobs
        ]
        worker.send({"op": "bundle", "id": bundle.id, "arm": arm_to_json(self._arms[bundle.arm]), "jobs": jobs})

    def _shown(self, sample: Sample) -> Sample:
        """A sample as a worker gets it: references stay here, but for servers that say that they look at them."""
        if "references" in self._selection.server.spec.capabilities:
            return sample
        meta = {name: value for name, value in sample.meta.items() if name not in ("oracle", "oracle_turns")}
        return replace(sample, references=(), negatives=(), meta=meta)

    def _record(self, worker: Worker | None, record: dict[str, Json]) -> None:
        for name in TEXTS:
            if record.get(name):
                record[name] = redacted(record[name], self._hidden)
        self._recorded.add(self._out.append(record), record)
        bundle = self._busy.get(worker) if worker else None
        if not record["last"] and bundle is not None:
            bundle.calls[record["job"]] = record["step"] + 1
        if record["last"] and bundle is not None:
            bundle.left.pop(record["job"], None)
        self._deaths = 0
        self._remark(record)
        self._progress.response(record)
        self._selection.catalog.observe("loom_response", record=record)

    def _unasked(self, worker: Worker, event: Mapping[str, Json]) -> str:
        """Why an event is not an answer to what its worker was handed; "" where it is, or answers nothing."""
        if event["op"] not in ("response", "done", "refused"):
            return ""
        bundle = self._busy[worker]
        if bundle is None or event["bundle"] != bundle.id:
            return f"{event['op']} for bundle {event['bundle']}, which it does not have"
        record = event.get("record")
        if record is None:
            return ""
        job = bundle.left.get(record["job"])
        names = ("sample", "task", "arm", "repeat")
        right = job is not None and all(record.get(name) == getattr(job, name) for name in names)
        return "" if right else "response to a question that is not open"

    def _refuse(self, worker: Worker, error: LoomError) -> None:
        """The server refuses the arm in hand: the others go on. Refusing the baseline is the run's failure."""
        bundle = self._busy[worker]
        if bundle is None or bundle.arm == DENSE.name:
            raise error
        if bundle.arm not in self.outcome.refused:
            self.outcome.refused[bundle.arm] = error
            self._note(redact(f"arm {bundle.arm} is refused and does not run: {reason(error)}", self._hidden))
        self._agenda.drop(bundle.arm)
        self._hand_out(worker)

    def _misbehaved(self, worker: Worker, problem: str) -> None:
        """What came over a worker's pipe is not an event: nothing it says can be relied on, and it is replaced."""
        worker.last_lines.append(f"it wrote something that is not an event: {problem}")
        worker.kill()

    def _failed(self, worker: Worker, error: LoomError, permanent: bool) -> None:
        """A worker says why it ends: before it was ready, or where it would be refused again, that is the run's
        failure; an accident later is a death like any other.
        """
        if permanent or (not worker.ready and self._started <= self._placement.workers):
            raise error
        worker.last_lines.append(str(error).replace("\n", " "))

    def _gone(self, worker: Worker, workers: int) -> None:
        bundle = self._busy.pop(worker)
        if self._interrupts or (bundle is None and not len(self._agenda)):
            return
        self._deaths += 1
        reason = f"worker {worker.number} died: {worker.death()}"
        self._note(redact(reason, self._hidden))
        if bundle is not None and bundle.left:
            if bundle.attempts + 1 >= ATTEMPTS and len(bundle.left) == 1:
                for job in list(bundle.left.values()):
                    lost = _lost(job, bundle.calls.get(job.key, 0), reason)
                    self._record(None, {**lost, "protocol": self._selection.config.protocol})
            else:
                self._agenda.give_back(bundle)
        if self._deaths >= (DEATHS_IN_A_ROW if worker.ready else ATTEMPTS):
            raise ModelError(
                "workers keep dying",
                where=str(self._folder.logs),
                why=reason,
                hint="what was answered is stored; `loom run` again continues",
            )
        if len(self._agenda) or (self._source.more and not self._busy):
            self._start(worker.number, workers)

    def _remark(self, record: Mapping[str, Json]) -> None:
        """Tell what the server remarked on an answer, each phrase once; the record keeps it for each answer."""
        for text in record.get("notes", ()):
            if text not in self._remarks:
                self._remarks.add(text)
                self._note(f"first seen with sample {record['sample']} of {record['task']}: {text}")

    def _note(self, text: str) -> None:
        self.outcome.events.append(text)
        self._progress.note(text)


def _lost(job: Job, step: int, reason: str) -> dict[str, Json]:
    """The record of a job over which workers kept dying; `step` is the call that none of them finished."""
    timing = Timing(queued=0.0, started=0.0, first_token=None, ended=0.0)
    key = call_key(job.key, step, None, None)
    response = Response(key=key, text="", finish="error", n_in=0, n_out=0, timing=timing, error=reason)
    record: dict[str, Json] = {"job": job.key, "step": step, "turn": None, "last": True}
    record |= {"sample": job.sample, "task": job.task, "arm": job.arm, "repeat": job.repeat}
    record |= {"prompt_digest": None, "bos": None, "cut": [], "answer": None, "prepared_seconds": 0.0}
    record |= {"rewriting": None, "rewriting_cost": None, "evidence": None}
    return {**record, **plain(response)}
