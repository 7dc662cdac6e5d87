"""The BABILong benchmark: tasks, samples by length, table. Knows no model; reads upstream files through `Data`.

Source: booydar/babilong (Apache-2.0), arXiv 2406.10149; scored by its compare_answers, through loom-metric-text.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice, zip_longest
from pathlib import Path

from loom_bench_babilong.mixing import Noise, fitted, own_sentences, sentences_of
from loom_bench_babilong.plugin import EVALUATED, LONG, PREFIX, TASKS, BabilongOptions
from loom_bench_babilong.released import LEVELS as RELEASED, Cell, level_name
from loom_bench_babilong.stories import Story, chosen, in_turn, made, read_stories
from loom_bench_babilong.wording import Ask, loom_ask, read_prompt
from loom_core.api import (
    BenchmarkBase,
    Data,
    DataError,
    DataSource,
    Evidence,
    Generation,
    Graded,
    Json,
    Line,
    Sample,
    Task,
    Tokenizer,
    Unavailable,
    UsageError,
    gold_scored,
    read_pins,
    rows_of,
)

METRIC, WHOLE = "babilong_labels", "babilong_whole_labels"
MAX_TOKENS = 20
DEFAULT_SAMPLES = 20
LEVELS = {"loom": (0, 1024, 2048, 4096), "babi": (0, 1024, 2048, 4096), "official": RELEASED["1000"]}
CHANCE = {
    **dict.fromkeys(("qa1", "qa2", "qa3", "qa4", "qa11", "qa12", "qa13", "qa14"), 1 / 6),
    **dict.fromkeys(("qa6", "qa9", "qa17", "qa18"), 1 / 2),
    **dict.fromkeys(("qa15", "qa16"), 1 / 4),
    "qa10": 1 / 3,
}
"""One over the number of answers, where every question has all of them to choose from."""


class Babilong(BenchmarkBase):
    """The tasks of one variant."""

    def __init__(self, options: BabilongOptions) -> None:
        self._options = options

    @cached_property
    def _pins(self) -> Mapping[str, DataSource]:
        return read_pins(Path(__file__))

    @property
    def prompts_source(self) -> DataSource:
        """The authors' prompts."""
        return self._pins["babilong/babilong/prompts.py"]

    @property
    def _indices(self) -> DataSource:
        return self._pins["babilong/data/test_100_idxs.json"]

    def stories_source(self, name: str) -> DataSource:
        """bAbI's file of a task."""
        return next(source for path, source in self._pins.items() if f"/en-10k/{name}_" in path)

    def _cell(self, name: str, level: int) -> Cell:
        return Cell(self._options.release, name, level)

    def _released_levels(self, name: str) -> tuple[int, ...]:
        """The lengths asked for, of a released task; qa11 to qa20 are released at 0 alone."""
        return self._levels() if name in LONG else tuple(level for level in self._levels() if level == 0)

    def _levels(self) -> tuple[int, ...]:
        levels = tuple(dict.fromkeys(self._options.levels or LEVELS[self._options.variant]))
        released = RELEASED[self._options.release]
        if self._options.variant == "official" and (odd := [n for n in levels if n not in released]):
            raise UsageError(
                f"no records of length {level_name(odd[0])} are released",
                where="babilong, option levels",
                hint="released: " + ", ".join(map(level_name, released)),
            )
        return levels

    def sources(self) -> tuple[DataSource, ...]:
        """Every file of the default lengths, the prompts and the stories."""
        records = [self._cell(name, level).usual for name in EVALUATED for level in LEVELS["official"]]
        return (*self._pins.values(), *records)

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """The variant's tasks: bAbI's twenty (official: those released at a length asked for), or loom's five."""
        variant = self._options.variant
        names = EVALUATED if variant == "loom" else TASKS
        return tuple(self._task(name) for name in names if variant != "official" or self._released_levels(name))

    def _task(self, name: str) -> Task:
        variant = self._options.variant
        sources: tuple[DataSource, ...] = ()
        if variant == "official":
            sources = (self.prompts_source, *(self._cell(name, level).usual for level in self._released_levels(name)))
        elif variant == "babi":
            sources = (self.prompts_source, self.stories_source(name), *((self._indices,) if name in EVALUATED else ()))
        return Task(
            name=PREFIX[variant] + name,
            version="1" if variant == "loom" else "2",
            capability="reasoning",
            metrics=(METRIC, WHOLE),
            generation=Generation(max_tokens=MAX_TOKENS),
            chance=CHANCE.get(name),
            sources=sources,
            licence="Apache-2.0" if variant == "loom" else "Apache-2.0; bAbI BSD or CC BY 3.0",
        )

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """The lengths in turn. lengths: model tokens of the whole prompt; released records keep their own lengths."""
        name, variant = task.name.removeprefix(PREFIX[self._options.variant]), self._options.variant
        bare = self._options.prompts == "bare"
        ask = loom_ask(name) if variant == "loom" else read_prompt(data, self.prompts_source, name, bare=bare).ask
        if variant == "official":
            yield from self._released(task, name, data, ask)
            return
        levels = tuple(dict.fromkeys(lengths)) or self._levels()
        asked = self._options.samples
        n = DEFAULT_SAMPLES if asked is None else asked
        stories: Sequence[Story] = ()
        if variant == "babi":
            stories = self._babi(data, name)[: n or None]
            if not self._options.text:
                data.notes[f"{task.name}: the text around the facts is loom's own, not the authors' PG-19"] = None
        sentences = sentences_of(Path(self._options.text)) if variant == "babi" and self._options.text else None
        for index in range(len(stories) if variant == "babi" else n or 1):
            for level in levels:
                of = f"{task.name}-{level}-{index}"
                draw = random.Random(f"babilong {self._options.seed} {of}")
                story = stories[index] if variant == "babi" else made(name, draw)
                yield self._sample(task, of, story, ask, draw, sentences, tokenizer, level)

    def _babi(self, data: Data, name: str) -> list[Story]:
        """The stories of a task: the authors' hundred in their order where they have chosen (qa1 to qa5), and
        otherwise all of them in an order drawn from the seed."""
        source = self.stories_source(name)
        stories = list(read_stories(data.text(source), where=source.pin))
        if name not in EVALUATED or self._options.seed:
            return in_turn(stories, self._options.seed, name)
        try:
            indices = json.loads(data.text(self._indices))[name]
            return chosen(stories, [int(i) for i in indices], where=source.pin)
        except (ValueError, TypeError, KeyError) as error:
            why = f"no list of whole numbers for {name}: {error}"
            raise DataError(
                "the authors' choice of stories is not as expected", where=self._indices.pin, why=why
            ) from error

    def _sample(
        self,
        task: Task,
        of: str,
        story: Story,
        ask: Ask,
        draw: random.Random,
        sentences: Sequence[str] | None,
        tokenizer: Tokenizer | None,
        level: int,
    ) -> Sample:
        noise = Noise(sentences or own_sentences(), draw, shuffled=sentences is None)
        found = fitted(
            story,
            noise,
            draw,
            lambda context: ask(context, story.question),
            tokenizer,
            level,
            where=f"babilong:{task.name}, length {level}",
        )
        prompt = ask(found.context, story.question)
        place = next(i for i, one in enumerate(prompt.segments) if one.kind == "context")
        meta = _meta(story.question, story.answer, task)
        if story.labels:
            meta["labels"] = list(story.labels)
        if tokenizer is None and level:
            meta["length_estimated"] = True
        spans = [found.spans[i] for i in story.support]
        return Sample(
            id=of,
            task=task.name,
            prompt=prompt,
            references=(story.answer,),
            level=level_name(level),
            evidence=tuple(Evidence(segment=place, start=start, end=end) for start, end in spans),
            meta=meta,
        )

    def _released(self, task: Task, name: str, data: Data, ask: Ask) -> Iterator[Sample]:
        """The records of every length that is there, the lengths in turn; what is not there is noted."""
        there: list[tuple[Cell, tuple[DataSource, ...]]] = []
        missing: list[Unavailable] = []
        for level in self._released_levels(name):
            cell = self._cell(name, level)
            try:
                there.append((cell, cell.files(data)))
            except Unavailable as error:
                missing.append(error)
                data.notes[f"babilong:{task.name}: length {level_name(level)} is unavailable here"] = None
        if missing and not there:
            raise missing[0]
        rows = [islice(cell.records(data, files), self._options.samples or None) for cell, files in there]
        of = "" if self._options.release == "100" else f"{self._options.release}-"
        for row in zip_longest(*rows):
            for (cell, _), found in zip(there, row, strict=True):
                if found is not None:
                    number, record = found
                    yield Sample(
                        id=f"{task.name}-{level_name(cell.level)}-{of}{number}",
                        task=task.name,
                        prompt=ask(record["input"], record["question"]),
                        references=(record["target"],),
                        level=level_name(cell.level),
                        meta=_meta(record["question"], record["target"], task),
                    )

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """Accuracy times 100 of each task and length, as in the authors' tables; by length the authors' average (of
        the released records alone) and the mean over all tasks."""
        cells: dict[tuple[str, str], list[Graded]] = {}
        for row in rows:
            cells.setdefault((row.task, row.sample.level or ""), []).append(row)
        lines = {cell: _accuracy(" ".join(cell), graded) for cell, graded in cells.items()}
        means: list[Line] = []
        for prefix in PREFIX.values():
            of_variant = {(task, level): line for (task, level), line in lines.items() if _is_of(task, prefix)}
            tasks = {task for task, _ in of_variant}
            for level in dict.fromkeys(level for _, level in of_variant):
                at = {task: line for (task, its), line in of_variant.items() if its == level}
                if not prefix:
                    means.append(_authors_average(level, at, [name for name in LONG if name in tasks]))
                means.append(_mean(f"{prefix}mean {level}", list(at.values())))
        return [*lines.values(), *means]

    @staticmethod
    def score_gold(row: Mapping[str, Json]) -> float:
        """The official score of a gold row, 0 or 1. Raises where the row has no question."""
        extra = row.get("extra") or {}
        meta = {name: extra[name] for name in ("question", "labels") if name in extra}
        # A row's task may carry its length: qa1_4k is qa1.
        name = re.search(r"qa\d+", str(row["task"]))
        task = name[0] if name else row["task"]
        return float(gold_scored(METRIC, row, {**meta, "task": task}).value or 0.0)


def _meta(question: str, target: str, task: Task) -> dict[str, Json]:
    """What the metric reads; the task is bAbI's own name."""
    name = task.name.rpartition("_")[2]
    return {"question": question.strip(), "task": name, "oracle": target}


def _is_of(task: str, prefix: str) -> bool:
    return task.startswith(prefix) if prefix else not task.startswith(tuple(filter(None, PREFIX.values())))


def _accuracy(name: str, rows: Sequence[Graded]) -> Line:
    given = [row.scored[METRIC].value for row in rows if METRIC in row.scored]
    values = [value for value in given if value is not None]
    mean = 100 * sum(values) / len(values) if values else None
    lost = len(rows) - len(values)
    return Line(name=name, metric=METRIC, value=mean, n=len(values), missing=lost, rows=list(rows))


def _authors_average(level: str, lines: Mapping[str, Line], tasks: Sequence[str]) -> Line:
    """collect_results.py: the mean of the first five of the tasks (qa1 to qa10) that were run at any length; none,
    which is -1 there, where they are fewer than five or one of them has no value at this length.
    """
    first = tasks[: len(EVALUATED)]
    there = [lines[name] for name in first if name in lines]
    values = [line.value for line in there if line.value is not None]
    whole = len(values) == len(EVALUATED)
    missing = [name for name in first if name not in lines or lines[name].value is None]
    return Line(
        name=f"avg {level}",
        metric=METRIC,
        value=sum(values) / len(values) if whole else None,
        n=sum(line.n for line in there),
        missing=sum(line.missing for line in there),
        rows=rows_of(there),
        note=f"the authors' average: {', '.join(first)}"
        if whole
        else f"the authors' average (-1 there) takes five tasks; missing: {', '.join(missing) or 'fewer were run'}",
    )


def _mean(name: str, lines: Sequence[Line]) -> Line:
    """The plain mean over tasks; none where a task has no value."""
    values = [line.value for line in lines if line.value is not None]
    return Line(
        name=name,
        metric=METRIC,
        value=sum(values) / len(values) if values and len(values) == len(lines) else None,
        n=sum(line.n for line in lines),
        missing=sum(line.missing for line in lines),
        note=f"mean of {len(values)} tasks",
        rows=rows_of(lines),
    )
