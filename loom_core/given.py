"""Answers made elsewhere become a run folder like any other: read, matched with the questions, recorded, scored.

loom's own layout is read here; those of a benchmark's authors by `BenchmarkSpec.answers`. Asks no model. Knows the
stages of a run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loom_core import pipeline
from loom_core.contract.errors import DataError, UsageError
from loom_core.contract.keys import call_key, plain
from loom_core.contract.protocols import AnswerReader, GivenAnswer
from loom_core.contract.types import Job, Json, Response, Sample, Task, Timing
from loom_core.registry.plugins import Catalog, resolve
from loom_core.run.config import RunConfig
from loom_core.run.reporting import reporter
from loom_core.run.selection import Chosen, Selection, select
from loom_core.run.store import Responses, RunFolder, read_json
from loom_core.run.writing import Appender, set_torn_tail_aside, write_json
from loom_core.score.scoring import score_run

SHOWN = 5
"""Unknown answers that are named; all are counted."""
NAMES = {"id": ("id", "sample"), "answer": ("answer", "prediction", "pred", "text")}
"""Names of fields in loom's layout, the first that is there counts."""


@dataclass
class Taken:
    """What became of a file of answers. missing: planned questions without one."""

    folder: RunFolder
    report: dict[str, Json]
    recorded: int = 0
    missing: int = 0
    unknown: list[str] = field(default_factory=list)
    n_unknown: int = 0


def take(
    benchmark: str,
    answers: Path,
    model: str,
    given: Mapping[str, Json],
    catalog: Catalog,
    command: list[str],
    note: Callable[[str], None],
    tokenizer: str = "",
) -> Taken:
    """Make the run of these answers, scored and reported. given: further settings of `RunConfig`. tokenizer: the model
    whose tokenizer makes the questions, where they depend on one.

    Raises UsageError for a file that cannot be read, DataError for a broken one or two answers to one question.
    """
    content = _content(answers)
    source = {"file": answers.name, "sha256": content, **({"tokenizer": tokenizer} if tokenizer else {})}
    settings = {"benchmarks": [benchmark], "model": model, "server": "elsewhere", "server_options": source, **given}
    selection = select(RunConfig().merged(settings, "command line"), catalog)
    (chosen,) = selection.chosen
    found = read(answers, selection, chosen)
    repeats = 1 + max((one.repeat for one in found.values()), default=0)
    if repeats > 1:
        selection = select(RunConfig().merged({**settings, "repeats": repeats}, "command line"), catalog)
    folder = RunFolder(
        Path(str(given["out"])) if given.get("out") else pipeline.RUNS / pipeline.default_name(selection)
    )
    with folder.writing():
        pipeline.prepare(folder, selection, command)
        set_torn_tail_aside(folder.responses)
        taken = _record(folder, found)
        _tell(folder, taken, answers.name)
        score_run(folder, selection, note=note)
        taken.report = reporter(catalog).write(folder)
    return taken


def read(path: Path, selection: Selection, chosen: Chosen) -> dict[tuple[str, str, int], GivenAnswer]:
    """The answers by (full task name, sample id, repeat)."""
    data, tokenizer = pipeline.open_data(selection.config), selection.describe().tokenizer

    def samples(task: Task) -> Iterator[Sample]:
        return chosen.benchmark.samples(task, data.for_benchmark(chosen.name), tokenizer, selection.config.lengths)

    rows: Iterator[GivenAnswer] | None = None
    if where := chosen.choice.found.spec.answers:
        reader: AnswerReader = resolve(where)
        rows = reader(path, chosen.tasks, samples)
    full = {task.name: chosen.full_name(task) for task in chosen.tasks}
    found: dict[tuple[str, str, int], GivenAnswer] = {}
    for one in own_layout(path, chosen.tasks) if rows is None else rows:
        key = (full.get(one.task, one.task), one.id, one.repeat)
        if key in found:
            raise DataError(
                f"two answers to sample {one.id!r} of {key[0]}",
                where=f"{path}, {found[key].place} and {one.place}",
                hint='give several answers to one question as "repeat": 0, 1, …',
            )
        found[key] = one
    return found


def own_layout(path: Path, tasks: Sequence[Task]) -> Iterator[GivenAnswer]:
    """loom's layout: JSON lines, or one JSON list, of {"id", "task", "answer"}, and "repeat" for several answers.

    task may be left out where one is chosen, and may have the benchmark's name before it; answer is a text, or a list
    of texts for a conversation. Raises DataError naming line or item.
    """
    if path.is_dir():
        raise UsageError("a folder of answers", where=str(path), hint="this benchmark reads one file of JSON lines")
    for place, row in _rows(path):
        fields = {name: next((row[n] for n in names if n in row), None) for name, names in NAMES.items()}
        texts: Json = [fields["answer"]] if isinstance(fields["answer"], str) else fields["answer"]
        repeat, task = row.get("repeat", 0), row.get("task")
        if isinstance(task, str):
            task = task.partition(":")[2] or task
        elif task is None and len(tasks) == 1:
            task = tasks[0].name
        for wrong, what in (
            (not isinstance(fields["id"], (str, int)) or isinstance(fields["id"], bool), "no id"),
            (not isinstance(task, str), "no task, and several are chosen"),
            (
                not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts),
                "no answer: a text, or a list of texts",
            ),
            (not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 0, "repeat is not a whole number"),
        ):
            if wrong:
                hint = 'a record is {"id": …, "task": …, "answer": …}'
                raise DataError("an answer cannot be read", where=f"{path}, {place}", why=what, hint=hint)
        yield GivenAnswer(id=str(fields["id"]), task=str(task), texts=tuple(texts), repeat=repeat, place=place)


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Json]]]:
    text = path.read_text("utf-8", errors="surrogateescape")
    if text.lstrip()[:1] == "[":
        try:
            items = [(f"item {i}", item) for i, item in enumerate(json.loads(text), 1)]
        except ValueError as error:
            raise DataError("the answers are not valid JSON", where=str(path), why=str(error)) from error
    else:
        items = [(f"line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    for place, item in items:
        try:
            row = json.loads(item) if isinstance(item, str) else item
        except ValueError as error:
            raise DataError("the answers are not JSON lines", where=f"{path}, {place}", why=str(error)) from error
        if not isinstance(row, dict):
            raise DataError("an answer is not a JSON object", where=f"{path}, {place}")
        yield place, row


def _content(path: Path) -> str:
    """sha256 of a file, or of a folder's files by name."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    try:
        for file in files:
            total.update(hashlib.sha256(file.read_bytes()).digest())
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError("the answers cannot be read", where=f"--answers {path}", why=why) from error
    return total.hexdigest()


def _record(folder: RunFolder, found: Mapping[tuple[str, str, int], GivenAnswer]) -> Taken:
    """Record each answer as its job's responses, one a turn; what is recorded already stays."""
    taken, left = Taken(folder, {}), dict(found)
    recorded, out = Responses(folder.responses), Appender(folder.responses)
    try:
        for job in folder.read_jobs():
            one = left.pop((job.task, job.sample, job.repeat), None)
            taken.recorded += one is not None
            taken.missing += one is None
            if one is not None and not recorded.ended(job.key):
                for record in _records(job, one):
                    out.append(record)
    finally:
        out.close()
    taken.n_unknown = len(left)
    taken.unknown = [f"{task} {sample}" for task, sample, _ in list(left)[:SHOWN]]
    return taken


def _records(job: Job, given: GivenAnswer) -> Iterator[dict[str, Json]]:
    for step, text in enumerate(given.texts):
        timing = Timing(queued=0.0, started=0.0, first_token=None, ended=0.0)
        key = call_key(job.key, step, None, None)
        response = Response(key=key, text=text, finish="stop", n_in=0, n_out=0, timing=timing)
        empty = dict.fromkeys(("prompt_digest", "bos", "answer", "rewriting", "rewriting_cost", "evidence"))
        yield {
            "job": job.key,
            "step": step,
            "turn": step,
            "last": step == len(given.texts) - 1,
            "sample": job.sample,
            "task": job.task,
            "arm": job.arm,
            "repeat": job.repeat,
            "protocol": "query-aware",
            "given": True,
            "cut": [],
            "prepared_seconds": 0.0,
            **empty,
            **plain(response),
        }


def _tell(folder: RunFolder, taken: Taken, name: str) -> None:
    """Write into the plan, which every report shows, whose answers these are and which of them found no question."""
    plan = read_json(folder.plan)
    told = [f"The answers were not made by loom: they were read from {name}. Nothing is known of times and prompts."]
    if taken.n_unknown:
        more = ", …" if taken.n_unknown > len(taken.unknown) else ""
        told.append(f"{taken.n_unknown} answers match no question of this run: {', '.join(taken.unknown)}{more}.")
    plan["told"] = [*(row for row in plan["told"] if row not in told), *told]
    write_json(folder.plan, plan)
