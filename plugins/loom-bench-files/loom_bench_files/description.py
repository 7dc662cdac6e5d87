"""A benchmark without code: a TOML description beside JSONL records. Used by its path, or registered by a plugin.

Lives in core because its path is a name that users type, and because a plugin that ships a description imports nothing
but core. Knows records and templates; knows no benchmark. The format is explained in docs/plugins.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

from loom_core.api import (
    BadRecord,
    BenchmarkBase,
    BenchmarkSpec,
    Catalog,
    Data,
    DataError,
    DataSource,
    Found,
    Generation,
    Graded,
    Json,
    Line,
    NoOptions,
    Prompt,
    Sample,
    Segment,
    Task,
    Tokenizer,
    Truncation,
    UsageError,
    nearest,
    read_toml,
    segment,
)
from loom_core.api.records import (
    Check,
    Record,
    anything,
    either,
    listed,
    mapping,
    number,
    one_of,
    optional,
    problem,
    read_records,
    text,
    texts,
    truth,
    whole,
)
from loom_core.api.templates import Piece, fields_of, filled, merged, pieces

FACTORY = "loom_bench_files.description:Described"
HEAD: Mapping[str, Check] = {
    "name": text,
    "version": text,
    "summary": text,
    "capability": text,
    "licence": text,
    "language": optional(text),
}
TASK: Mapping[str, Check] = {
    "records": text,
    "prompt": text,
    "context": optional(texts),
    "question": optional(texts),
    "system": optional(text),
    "prefill": optional(text),
    "references": text,
    "metrics": listed(text, at_least=1),
    "max_tokens": whole,
    "min_tokens": optional(whole),
    "temperature": optional(number),
    "top_p": optional(number),
    "stop": optional(texts),
    "chat": optional(one_of("template", "completion")),
    "truncation": optional(mapping),
    "id": optional(text),
    "level": optional(text),
    "cluster": optional(text),
    "group": optional(text),
    "meta": optional(texts),
    "capability": optional(text),
    "language": optional(text),
    "chance": optional(number),
    "retrieval": optional(truth),
}
CUT: Mapping[str, Check] = {
    "scope": optional(one_of("context", "prompt")),
    "side": optional(one_of("middle", "left", "right")),
    "limit": optional(whole),
}
TABLE: Mapping[str, Check] = {
    "name": text,
    "average": one_of("macro", "micro"),
    "over": optional(texts),
    "scale": optional(number),
    "digits": optional(whole),
    "metric": optional(text),
}
NAME = re.compile(r"\w[\w.-]*")
ATOM = either(text, whole, number, truth)


@dataclass(frozen=True)
class Description:
    """A description that was read and checked. tasks: the settings of each by name. digest: of it and its records."""

    file: Path
    head: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    tables: Sequence[Mapping[str, Any]]
    digest: str
    prompts: Mapping[str, tuple[Piece, ...]] = field(repr=False)

    @property
    def name(self) -> str:
        """The benchmark's name in every table."""
        return str(self.head["name"])


def read_description(file: Path) -> Description:
    """The description. Raises UsageError naming the file and the key, DataError where records are missing."""
    try:
        values = read_toml(file)
    except OSError as error:
        raise UsageError("a benchmark cannot be read", where=str(file), why=error.strerror or str(error)) from error
    except ValueError as error:
        raise UsageError("a benchmark's description is not valid TOML", where=str(file), why=str(error)) from error
    _known(values, ("benchmark", "tasks", "table"), file, "")
    head, tasks, tables = values.get("benchmark", {}), values.get("tasks", {}), values.get("table", [])
    _check(head, HEAD, file, "benchmark")
    if not isinstance(tasks, dict) or not tasks:
        raise UsageError("a benchmark's description has no task", where=str(file), hint="add a table [tasks.NAME]")
    prompts = {}
    for key, name in (("benchmark.name", head["name"]), *((f"tasks.{name}", name) for name in tasks)):
        if not NAME.fullmatch(name):
            raise _bad(file, key, f"{name!r}: a name has letters, digits, '.', '_' and '-'", "")
    for name, task in tasks.items():
        key = f"tasks.{name}"
        _check(task, TASK, file, key)
        _check(task.get("truncation", {}), CUT, file, f"{key}.truncation")
        prompts[name] = pieces(task["prompt"], where=f"{file}, {key}.prompt")
        asked = fields_of(prompts[name])
        if not asked:
            raise _bad(file, f"{key}.prompt", "it names no field", "write {NAME} where a field of a record belongs")
        for kind in ("context", "question"):
            for one in task.get(kind, ()):
                if one not in asked:
                    raise _bad(file, f"{key}.{kind}", f"{one!r} is not a field of the prompt", nearest(one, asked))
    if not isinstance(tables, list):
        raise _bad(file, "table", "not a list of tables", "write [[table]]")
    for i, table in enumerate(tables):
        _check(table, TABLE, file, f"table {i + 1}")
        for name in table.get("over", ()):
            if name not in ("task", "level", "language") and any(name not in t.get("meta", ()) for t in tasks.values()):
                why = f"{name!r} is not one of task, level, language, and not in the meta of every task"
                raise _bad(file, f"table {i + 1}.over", why, "")
    return Description(file, head, tasks, tables, _digest(file, tasks), prompts)


def _bad(file: Path, key: str, why: str, hint: str) -> UsageError:
    return UsageError("a benchmark's description is wrong", where=f"{file}, {key}", why=why, hint=hint)


def _known(values: Mapping[str, Any], known: Iterable[str], file: Path, key: str) -> None:
    for name in values:
        if name not in known:
            raise _bad(file, f"{key}.{name}".lstrip("."), "no such key", nearest(name, known))


def _check(values: Any, checks: Mapping[str, Check], file: Path, key: str) -> None:
    if isinstance(values, dict):
        _known(values, checks, file, key)
    if wrong := problem(values, checks):
        raise _bad(file, f"{key}.{wrong[0]}".rstrip("."), wrong[1], "docs/plugins.md describes the keys")


def _digest(file: Path, tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """sha256 of the description and of its records, in their order."""
    total = hashlib.sha256(file.read_bytes())
    for name in dict.fromkeys(str(task["records"]) for task in tasks.values()):
        try:
            with (file.parent / name).open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise DataError(
                "the records of a benchmark cannot be read",
                where=str(file.parent / name),
                why=error.strerror or str(error),
                hint=f"check `records` in {file}; it is relative to that file",
            ) from error
    return total.hexdigest()


def described(file: Path) -> BenchmarkSpec:
    """The spec of a description, for a plugin's `loom_benchmarks`, or for a path that a user gave.

    Its version is the declared one with a digest of the description and its records: whatever changes, keys change.
    """
    found = read_description(file)
    options = make_dataclass("DescribedOptions", [], bases=(NoOptions,), frozen=True, namespace={"description": found})
    return BenchmarkSpec(
        name=found.name,
        version=f"{found.head['version']}+{found.digest[:8]}",
        summary=found.head["summary"],
        factory=FACTORY,
        tasks=tuple(found.tasks),
        options=options,
        capability=found.head["capability"],
        licence=found.head["licence"],
    )


def found_at(path: str, catalog: Catalog) -> Found[BenchmarkSpec]:
    """The benchmark at a path that a user gave. Raises UsageError where an installed one has its name."""
    spec = described(Path(path))
    if spec.name in catalog.benchmarks:
        other = catalog.benchmarks.get(spec.name)
        raise UsageError(
            f"the name {spec.name!r} is taken by an installed benchmark",
            where=f"{path}, benchmark.name",
            why=f"{other.distribution} registers it",
            hint="give the description another name",
        )
    return Found(spec, f"the file {path}", str(spec.version))


class Described(BenchmarkBase):
    """A benchmark that is its description."""

    def __init__(self, options: Any) -> None:
        self._is: Description = options.description

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """The tasks of the description."""
        return tuple(self._task(name, values) for name, values in self._is.tasks.items())

    def _task(self, name: str, values: Mapping[str, Any]) -> Task:
        head = self._is.head
        return Task(
            name=name,
            version=str(head["version"]),
            capability=values.get("capability", head["capability"]),
            language=values.get("language", head.get("language", "en")),
            metrics=tuple(values["metrics"]),
            generation=Generation(
                max_tokens=values["max_tokens"],
                min_tokens=values.get("min_tokens", 0),
                temperature=float(values.get("temperature", 0.0)),
                top_p=float(values.get("top_p", 1.0)),
                stop=tuple(values.get("stop", ())),
            ),
            truncation=Truncation(**values.get("truncation", {})),
            chat=values.get("chat", "template"),
            chance=values.get("chance"),
            licence=head["licence"],
            retrieval=values.get("retrieval", True),
        )

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """The records in their order; one that lacks a field is left out and counted."""
        values = self._is.tasks[task.name]
        file = self._is.file.parent / values["records"]
        source = DataSource(pin=f"file:{values['records']}", folder="")
        for record in read_records(
            _Here(file, data.bad, data.notes), source, _fields(values, fields_of(self._prompt(task)))
        ):
            yield self._sample(task, values, record)

    def _prompt(self, task: Task) -> tuple[Piece, ...]:
        return self._is.prompts[task.name]

    def _sample(self, task: Task, values: Mapping[str, Any], record: Record) -> Sample:
        filling: dict[str, Sequence[Segment]] = {}
        for name in fields_of(self._prompt(task)):
            kind = next((kind for kind in ("context", "question") if name in values.get(kind, ())), "instruction")
            filling[name] = [segment(kind, str(record[name]))]  # type: ignore[arg-type]
        parts = filled(self._prompt(task), filling)
        system = [segment("system", values["system"])] if values.get("system") else []
        prefill = [segment("prefill", values["prefill"])] if values.get("prefill") else []
        references = record[values["references"]]

        def own(key: str) -> str | None:
            value = record.get(values[key]) if key in values else None
            return None if value is None else str(value)

        return Sample(
            id=own("id") or f"{task.name}-{record.number}",
            task=task.name,
            prompt=Prompt(segments=merged([*system, *parts, *prefill])),
            references=tuple(references) if isinstance(references, list) else (references,),
            level=own("level"),
            cluster=own("cluster"),
            group=own("group"),
            meta={name: record.get(name) for name in values.get("meta", ())},
        )

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """The tables of the description; without any, the mean of each task."""
        if not self._is.tables:
            return super().aggregate(rows)
        languages = {task.name: task.language for task in self.tasks(())}
        metrics = {name: values["metrics"][0] for name, values in self._is.tasks.items()}
        return [_line(table, rows, metrics, languages) for table in self._is.tables]


def _fields(values: Mapping[str, Any], asked: Iterable[str]) -> dict[str, Check]:
    """What each record must have."""
    checks: dict[str, Check] = dict.fromkeys(asked, ATOM)
    checks[values["references"]] = either(listed(anything, at_least=1), ATOM)
    for key in ("id", "level", "cluster", "group"):
        if key in values:
            checks[values[key]] = ATOM if key == "id" else optional(ATOM)
    return checks


@dataclass(frozen=True, slots=True)
class _Here:
    """A local file as `Data`; wrong records are noted where all others are."""

    file: Path
    bad: dict[BadRecord, None]
    notes: dict[str, None]

    def path(self, source: DataSource) -> Path:
        return self.file

    def text(self, source: DataSource) -> str:
        return self.file.read_text("utf-8")

    def used(self) -> Sequence[Any]:
        return ()

    def constants(self, source: DataSource, names: Iterable[str]) -> dict[str, Any]:
        raise DataError("records cannot be a Python file", where=str(self.file))


def _line(
    table: Mapping[str, Any], rows: Sequence[Graded], metrics: Mapping[str, str], languages: Mapping[str, str]
) -> Line:
    """One number: the mean over all samples (micro), or of the means of each group, innermost first (macro)."""
    metric = table.get("metric")
    keys: dict[str, Callable[[Graded], Json]] = {
        "task": lambda row: row.task,
        "level": lambda row: row.sample.level,
        "language": lambda row: languages.get(row.task),
    }
    values: list[tuple[Graded, float]] = []
    for row in rows:
        scored = row.scored.get(metric or metrics.get(row.task, ""))
        if scored is not None and scored.value is not None:
            values.append((row, scored.value))
    over = tuple(table.get("over", ("task",))) if table["average"] == "macro" else ()
    used = {metric or metrics.get(row.task, "") for row, _ in values}
    mean = _mean(values, [keys.get(name) or _of_meta(name) for name in over])
    return Line(
        name=table["name"],
        metric=metric or (used.pop() if len(used) == 1 else "primary metrics"),
        value=None if mean is None else mean * table.get("scale", 1),
        n=len(values),
        missing=len(rows) - len(values),
        digits=table.get("digits", 2),
        note="unweighted mean over unlike metrics" if len(used) > 1 else "",
        rows=list(rows),
    )


def _of_meta(name: str) -> Callable[[Graded], Json]:
    return lambda row: str(row.sample.meta.get(name))


def _mean(values: Sequence[tuple[Graded, float]], over: Sequence[Callable[[Graded], Json]]) -> float | None:
    if not values:
        return None
    if not over:
        return sum(value for _, value in values) / len(values)
    groups: dict[Json, list[tuple[Graded, float]]] = {}
    for row, value in values:
        groups.setdefault(over[0](row), []).append((row, value))
    means = [mean for group in groups.values() if (mean := _mean(group, over[1:])) is not None]
    return sum(means) / len(means)
