"""The run folder: append-only JSON lines, contexts stored once by digest, one writer at a time.

JSON lines are the truth; every index here is derived and may be rebuilt. A SIGKILL loses no record that was
appended, a power cut at most a second of them; a torn last line is set aside and asked again. Knows no benchmark
and no model.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loom_core.contract.errors import RunError
from loom_core.contract.keys import plain
from loom_core.contract.prompt import context_indices, with_texts
from loom_core.contract.shapes import misfit
from loom_core.contract.types import Evidence, Job, Json, Prompt, Sample, Segment
from loom_core.run import runfiles
from loom_core.run.writing import recording, to_line

UNREADABLE = (OSError, EOFError, ValueError, zlib.error)
ANEW = "delete plan.json in the run folder and run again: jobs and contexts are prepared again, answers are kept"


def read_json(path: Path) -> Any:
    """A JSON file; raises RunError naming it when it cannot be read, or is not what a run folder has by that name."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path.name} cannot be read", where=str(path), why=str(error)) from error
    if (form := runfiles.WHOLE.get(path.name)) is not None and (why := misfit(value, form)):
        hint = "it was altered: restore it, or `loom score` the run again where it holds scores or tables"
        raise RunError(f"{path.name} is not what loom writes", where=str(path), why=why, hint=hint)
    return value


@dataclass
class Damage:
    """Lines of a store that are not records, by number (from 1); they are passed over and kept where they are."""

    lines: list[int] = field(default_factory=list)
    torn_bytes: int = 0
    foreign: int = 0

    def __str__(self) -> str:
        texts = []
        if self.lines:
            shown = ", ".join(map(str, self.lines[:5])) + (", …" if len(self.lines) > 5 else "")
            texts.append(
                f"{len(self.lines)} unreadable line(s) passed over (line {shown}); what they held is asked again"
            )
        if self.torn_bytes:
            texts.append(
                f"a torn last line of {self.torn_bytes} bytes was set aside in responses.torn and is asked again"
            )
        if self.foreign:
            texts.append(f"{self.foreign} record(s) of another kind passed over")
        return "; ".join(texts)


def read_lines(path: Path, damage: Damage | None = None) -> Iterator[tuple[int, dict[str, Json]]]:
    """(byte offset, record) of each line, streaming. Lines that are not records, or none of this file, go to `damage`,
    or raise without one.
    """
    if not path.exists():
        return
    offset, form = 0, runfiles.of_line(path.name)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            record = _parse(line)
            why = "the file was altered or torn"
            if record is not None and form is not None and (wrong := misfit(record, form)):
                record, why = None, wrong
                if damage is not None:
                    damage.foreign += 1
                    offset += len(line)
                    continue
            if record is not None:
                yield offset, record
            elif damage is not None:
                damage.lines.append(number)
            elif line.strip():
                raise RunError(f"line {number} is not a record", where=str(path), why=why, hint=ANEW)
            offset += len(line)


def _parse(line: bytes) -> dict[str, Json] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and line.endswith(b"\n") else None


class Responses:
    """The recorded calls of a run, by job and step; of several of a call, the latest that is not an error wins."""

    def __init__(self, path: Path) -> None:
        self.path, self.damage = path, Damage()
        self._offsets: dict[str, dict[int, tuple[int, bool, bool]]] = {}
        for offset, record in read_lines(path, self.damage):
            self.add(offset, record)

    def add(self, offset: int, record: Mapping[str, Json]) -> None:
        """Take note of a record that stands at `offset`."""
        steps = self._offsets.setdefault(sys.intern(record["job"]), {})  # other readers hold the same keys
        failed = record["finish"] == "error"
        earlier = steps.get(record["step"])
        if earlier is None or earlier[1] or not failed:
            steps[record["step"]] = (offset, failed, bool(record["last"]))

    def ended(self, job: str) -> bool:
        """True if every call of the job is recorded, up to its last, and none of them failed."""
        return self._last_step(job) is not None

    def failed(self, job: str) -> bool:
        """True if the job has not ended and the newest word on one of its calls is an error."""
        return not self.ended(job) and any(failed for _, failed, _ in self._offsets.get(job, {}).values())

    def _last_step(self, job: str) -> int | None:
        steps, number = self._offsets.get(job, {}), 0
        while (entry := steps.get(number)) is not None and not entry[1]:
            if entry[2]:
                return number
            number += 1
        return None

    def of(self, job: str) -> list[dict[str, Json]]:
        """The records of a job, by step, up to its last call."""
        end = self._last_step(job)
        steps = {n: entry for n, entry in self._offsets.get(job, {}).items() if end is None or n <= end}
        if not steps:
            return []
        with self.path.open("rb") as file:
            rows = []
            for step in sorted(steps):
                file.seek(steps[step][0])
                rows.append(json.loads(file.readline()))
        return rows

    def __len__(self) -> int:
        return len(self._offsets)


class RunFolder:
    """One run: where its files are, who may write, and its samples and jobs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest, self.plan = path / "manifest.json", path / "plan.json"
        self.samples, self.jobs = path / "samples.jsonl", path / "jobs.jsonl.gz"
        self.responses, self.contexts = path / "responses.jsonl", path / "contexts"
        self.report_json, self.report_html, self.report_md = (path / f"report.{end}" for end in ("json", "html", "md"))
        self.official, self.logs = path / "official.json", path / "logs"
        self.judgements, self.judge = path / "judgements.jsonl", path / "judge.json"
        self.unscored = path / "unscored.json"

    @property
    def prepared(self) -> bool:
        """True once the plan stands: plan.json is written last."""
        return self.plan.exists()

    def scores(self, metric: str, version: str) -> Path:
        """The file with the scores of one metric version."""
        return self.path / f"scores-{metric}@{version}.jsonl"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for writing; raises RunError while another process holds it."""
        with recording(self.path, hint="choose another folder with --out"):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise RunError(
                "another loom is writing to this run",
                where=str(self.path),
                why=f"process {holder} holds its lock",
                hint="wait for it, or choose another folder with --out",
            ) from None
        try:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield
        finally:
            lock.close()

    def refuse_foreign(self) -> None:
        """Raise RunError where a run would begin among other files; nothing of a user is overwritten."""
        begun = {".lock", f"{self.manifest.name}.partial"}
        foreign = sorted(path.name for path in self.path.iterdir() if path.name not in begun)
        if foreign:
            shown = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
            why = f"it holds {shown} and no manifest of a run"
            raise RunError("not a run folder", where=str(self.path), why=why, hint="choose a new one with --out")

    def discard(self) -> None:
        """Remove what was prepared, where nothing was answered yet: a refused plan leaves nothing behind."""
        if self.responses.exists():
            return
        for path in (self.plan, self.samples, self.jobs, self.manifest, self.path / ".lock"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.contexts, ignore_errors=True)
        with suppress(OSError):
            self.path.rmdir()

    def write_samples(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Write samples as they pass, each context once; yields them on without their contexts' texts in memory."""
        shutil.rmtree(self.contexts, ignore_errors=True)  # what an earlier try left may be damaged
        with recording(self.contexts):
            self.contexts.mkdir(parents=True)
        with recording(self.samples), self.samples.open("w", encoding="ascii") as file:
            for sample in samples:
                file.write(to_line(self._without_contexts(sample)))
                yield sample

    def _without_contexts(self, sample: Sample) -> dict[str, Json]:
        record: dict[str, Json] = plain(sample)
        record["prompt"]["digest"] = sample.prompt.context_digest
        for i in context_indices(sample.prompt):
            segment = record["prompt"]["segments"][i]
            segment["stored"] = self.store_context(segment.pop("text"))
        return record

    def store_context(self, text: str) -> str:
        """Store a text once, under its sha256; returns the digest."""
        data = text.encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(data).hexdigest()
        path = self.contexts / f"{digest}.gz"
        if not path.exists():
            partial = path.with_suffix(f".{os.getpid()}")
            with recording(path):
                partial.write_bytes(gzip.compress(data, compresslevel=1, mtime=0))
                os.replace(partial, path)
        return digest

    def context(self, digest: str) -> str:
        """A stored text; raises RunError where it is missing or unreadable."""
        try:
            data = gzip.decompress((self.contexts / f"{digest}.gz").read_bytes())
            if hashlib.sha256(data).hexdigest() != digest:
                raise ValueError("its content is not what was stored")
            return data.decode("utf-8", "surrogatepass")
        except UNREADABLE as error:
            where = str(self.contexts / f"{digest}.gz")
            raise RunError("a stored context cannot be read", where=where, why=str(error), hint=ANEW) from error

    def read_samples(self) -> Samples:
        """The samples of this run, read on demand."""
        return Samples(self)

    def write_jobs(self, jobs: Iterable[Job]) -> int:
        """Write the planned jobs; returns how many."""
        with recording(self.jobs), gzip.open(self.jobs, "wt", encoding="ascii", compresslevel=3) as file:
            return sum(1 for job in jobs if file.write(to_line(plain(job))))

    def read_jobs(self) -> Iterator[Job]:
        """The planned jobs, in the order of the plan."""
        try:
            if self.jobs.stat().st_size == 0:
                raise EOFError("the file is empty")
            with gzip.open(self.jobs, "rt", encoding="ascii") as file:
                for number, line in enumerate(file, 1):
                    if why := misfit(row := json.loads(line), runfiles.JOB):
                        raise ValueError(f"line {number}: {why}")
                    yield Job(**row)
        except (*UNREADABLE, RecursionError) as error:
            raise RunError(
                "the planned jobs cannot be read", where=str(self.jobs), why=str(error), hint=ANEW
            ) from error


class Samples:
    """A run's samples by task and id, read from disk on demand; only byte offsets are kept in memory."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._offsets = {(row["task"], row["id"]): offset for offset, row in read_lines(folder.samples)}

    def light(self, task: str, sample: str) -> Sample:
        """The sample with empty context texts: enough for tables, references and levels."""
        record = self._record(task, sample)
        for segment in record["prompt"]["segments"]:
            if segment.pop("stored", None):
                segment["text"] = ""
        return sample_from(record)

    def full(self, task: str, sample: str) -> Sample:
        """The sample with its contexts."""
        record = self._record(task, sample)
        texts = {}
        for i, segment in enumerate(record["prompt"]["segments"]):
            if stored := segment.pop("stored", None):
                texts[i] = self._folder.context(stored)
                segment["text"] = ""
        light = sample_from(record)
        return replace(light, prompt=with_texts(light.prompt, texts))

    def _record(self, task: str, sample: str) -> dict[str, Json]:
        if (task, sample) not in self._offsets:
            where = str(self._folder.samples)
            raise RunError(
                f"sample {sample} of {task} is not stored", where=where, why="the file was altered", hint=ANEW
            )
        with self._folder.samples.open("rb") as file:
            file.seek(self._offsets[task, sample])
            record: dict[str, Json] = json.loads(file.readline())
        return record

    def __len__(self) -> int:
        return len(self._offsets)


def sample_from(record: Mapping[str, Json]) -> Sample:
    """A sample from its JSON record (whose segments hold their texts); the inverse of `keys.plain`."""
    values = dict(record)
    segments = tuple(Segment(**segment) for segment in values["prompt"]["segments"])
    values["prompt"] = Prompt(segments=segments)
    values["evidence"] = tuple(Evidence(**row) for row in values["evidence"])
    for name in ("references", "negatives", "documents"):
        values[name] = tuple(values[name])
    return Sample(**values)
