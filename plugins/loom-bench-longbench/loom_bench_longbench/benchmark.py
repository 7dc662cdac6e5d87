"""LongBench: its tasks, samples and scores. Knows no model; reads records, prompts and limits through `Data`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest

from loom_bench_longbench.plugin import EXTENDED_TASKS, TASKS, LongBenchOptions
from loom_bench_longbench.prompts import fill, read_entry
from loom_bench_longbench.settings import (
    BUCKETS,
    EXTENDED,
    GROUPS,
    LAST_BUCKET,
    LAST_LINE_ENDS,
    SCORERS,
    SETTINGS,
    base,
    bucket,
)
from loom_bench_longbench.table import table
from loom_core.api import (
    BenchmarkBase,
    Data,
    DataError,
    DataSource,
    Generation,
    Graded,
    Json,
    Line,
    Pinned,
    Sample,
    Task,
    Tokenizer,
    Truncation,
    UsageError,
    digest,
    gold_scored,
    nearest,
    records,
)

PROMPTS = "longbench/LongBench/config/dataset2prompt.json"
LIMITS = "longbench/LongBench/config/dataset2maxlen.json"
FIELDS: Mapping[str, records.Check] = {
    "input": records.text,
    "context": records.text,
    "answers": records.listed(records.text, at_least=1),
    "length": records.whole,
    "_id": records.text,
    "all_classes": records.optional(records.texts),
}
CLASSES = "longbench_classification"
WITH_CLASSES = {**FIELDS, "all_classes": records.listed(records.text, at_least=1)}
CLUSTER_DIGITS = 16


class LongBench(Pinned, BenchmarkBase):
    """The tasks of one view."""

    def __init__(self, options: LongBenchOptions) -> None:
        self._options = options

    def _records(self, task: str) -> DataSource:
        return self.pins[f"longbench/data.zip#data/{task}.jsonl"]

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """The tasks of the view, in the authors' order."""
        grouped = set(chain.from_iterable(GROUPS.values()))
        names = {
            "standard": TASKS,
            "e": EXTENDED_TASKS,
            "both": (*TASKS, *EXTENDED_TASKS),
            "groups": tuple(name for name in TASKS if name in grouped),
        }[self._options.view]
        return tuple(self._task(name) for name in names)

    def _task(self, name: str) -> Task:
        settings = SETTINGS[base(name)]
        ends = base(name) in LAST_LINE_ENDS
        return Task(
            name=name,
            version="2",
            capability="general",
            metrics=(settings.metric,),
            generation=Generation(
                max_tokens=settings.max_tokens, stop=("\n",) if ends else (), min_tokens=1 if ends else 0
            ),
            language=settings.language,
            truncation=Truncation(scope="prompt", side="middle", limit=self._options.max_length),
            chat="template" if settings.chat else "completion",
            sources=(self.pins[PROMPTS], self.pins[LIMITS], self._records(name)),
            licence="MIT; source corpora keep their own terms",
            retrieval=settings.retrieval,
        )

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """The records in the authors' order; those of an `_e` task in turn from each length bucket.

        Raises Unavailable where a file is missing, DataError where the authors' limits are not those known here.
        """
        name, settings = base(task.name), SETTINGS[base(task.name)]
        prompts, limits = self.pins[PROMPTS], self.pins[LIMITS]
        limit = read_entry(data.text(limits), limits, name, int)
        if limit != settings.max_tokens:
            raise DataError(
                "LongBench's limits are not those this plugin was written for",
                where=limits.pin,
                why=f"{name} may have {limit} new tokens, known here are {settings.max_tokens}",
                hint="pip install -U loom-bench-longbench",
            )
        template = read_entry(data.text(prompts), prompts, name, str)
        fields = WITH_CLASSES if settings.metric == CLASSES else FIELDS
        found = (
            _sample(task.name, template, record)
            for record in records.read_records(data, self._records(task.name), fields)
        )
        return _in_turn(found) if task.name.endswith(EXTENDED) else found

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """The authors' table; with the view `groups`, the six groups and their average too."""
        return table(rows, grouped=self._options.view == "groups")

    @staticmethod
    def score_gold(row: Mapping[str, Json]) -> Json:
        """The official score of a gold row: 0 to 1, or 0 to 100 with two decimals for a whole task (`scorer`).

        `scorer_e` reads `extra.lengths` and gives a mapping by bucket, None for an empty one (the authors: NaN). A
        metric of another name is that of the task. Raises UsageError where the task is unknown too.
        """
        extra, task, metric = row.get("extra") or {}, base(str(row.get("task"))), str(row.get("metric"))
        if metric in SCORERS:
            # eval.py hands a scorer the first line alone in some tasks, whatever the row says about it.
            first = {"first_line_only": SETTINGS[task].first_line} if task in SETTINGS else {}
            return gold_scored(SCORERS[metric], row, {**first, **extra}).value
        if task not in SETTINGS:
            raise UsageError(f"no task of LongBench is called {task!r}", hint=nearest(task, SETTINGS))
        meta = {"first_line_only": SETTINGS[task].first_line, "all_classes": extra.get("all_classes")}
        if not isinstance(row["prediction"], list):
            return gold_scored(SETTINGS[task].metric, row, meta).value
        parts = zip(row["prediction"], row["references"], strict=True)
        values = [
            gold_scored(SETTINGS[task].metric, {"prediction": prediction, "references": references}, meta).value or 0.0
            for prediction, references in parts
        ]
        if metric != "scorer_e":
            return _official_mean(values)
        by_bucket: dict[str, list[float]] = {name: [] for name in (*(name for _, name in BUCKETS), LAST_BUCKET)}
        for words, value in zip(extra["lengths"], values, strict=True):
            by_bucket[bucket(words)].append(value)
        # The authors multiply a mean here and a sum above, which can differ where a value is halfway between two.
        means = {name: sum(found) / len(found) if found else None for name, found in by_bucket.items()}
        return {name: None if mean is None else round(100 * mean, 2) for name, mean in means.items()}


def _official_mean(values: Sequence[float]) -> float:
    return round(100 * sum(values) / len(values), 2) if values else 0.0


def _sample(task: str, template: str, record: records.Record) -> Sample:
    extended = task.endswith(EXTENDED)
    settings, words = SETTINGS[base(task)], int(record["length"])
    meta: dict[str, Json] = {"words": words, "first_line_only": settings.first_line}
    if settings.metric == CLASSES:
        meta["all_classes"] = record["all_classes"]
    return Sample(
        # Some tasks repeat an _id upstream; the line makes it unique.
        id=f"{task}-{record.number}-{record['_id'][:12]}",
        task=task,
        prompt=fill(template, record.values),
        references=tuple(record["answers"]),
        level=bucket(words) if extended else None,
        cluster=digest(record["context"])[:CLUSTER_DIGITS],
        meta=meta,
    )


def _in_turn(samples: Iterable[Sample]) -> Iterator[Sample]:
    """One sample of each level after the other, so that the first n are spread over the levels."""
    by_level: dict[str | None, list[Sample]] = {}
    for sample in samples:
        by_level.setdefault(sample.level, []).append(sample)
    for together in zip_longest(*by_level.values()):
        yield from (sample for sample in together if sample is not None)
