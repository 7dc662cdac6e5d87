"""The Counting-Stars benchmark: tasks, samples of the authors' files or of loom's own text, table. Knows no model.

Source: nick7nlp/Counting-Stars (MIT), arXiv 2403.11802; scoring by viz.ipynb, through loom-metric-text.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from loom_bench_counting_stars.own import WORDINGS, Counts, Filler, fitted
from loom_bench_counting_stars.plugin import FORMS, PREFIX, CountingStarsOptions
from loom_core.api import (
    BadRecord,
    BenchmarkBase,
    Data,
    DataError,
    DataSource,
    Evidence,
    Generation,
    Graded,
    Json,
    Line,
    Metric,
    Prompt,
    Sample,
    Task,
    Tokenizer,
    installed,
    read_pins,
    rows_of,
    segment,
)
from loom_core.api.records import Record, listed, read_records, text, whole

MAX_TOKENS = 512
"""The authors set no limit. 32 numbers take up to 200 tokens where each digit is one."""
NOMINAL = {"en": 3200, "zh": 2800}
"""Words, or characters, of one step of the authors' sizes; a step is called 4,000 tokens."""
KEYS = {"en": "little_penguin", "zh": "小企鹅"}
METRICS = {"searching": "counting_stars_searching", "reasoning": "counting_stars_reasoning"}
STAR_LINE = re.compile(r"^.*★.*$", re.MULTILINE)
NUMBER = re.compile(r"\d+")
FIELDS = {
    "question": text,
    "context_size": whole,
    "retrieval_question": text,
    "reference_counting_results": listed(whole, at_least=1),
}


class CountingStars(BenchmarkBase):
    """Four tasks: English and Chinese, each searching and reasoning."""

    def __init__(self, options: CountingStarsOptions) -> None:
        self._options = options

    @cached_property
    def _pins(self) -> Mapping[str, DataSource]:
        return read_pins(Path(__file__))

    def sources(self) -> tuple[DataSource, ...]:
        """The four files."""
        return tuple(self._pins.values())

    def _source(self, form: str) -> DataSource:
        language, kind = form.split("_")
        name = f"Counting_Stars_{language.upper()}_multi-evidence-retrieval-{kind}_128000_32_32.jsonl"
        return self._pins[f"counting_stars/test_data/{name}"]

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """The variant's four tasks."""
        own = self._options.variant == "loom"
        return tuple(
            Task(
                name=(PREFIX if own else "") + form,
                version="1",
                capability="reasoning",
                language=form[:2],
                metrics=(METRICS[form[3:]],),
                generation=Generation(max_tokens=MAX_TOKENS),
                chance=0.0,
                sources=() if own else (self._source(form),),
                licence="Apache-2.0" if own else self._source(form).licence,
                grid=not own,
            )
            for form in FORMS
        )

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """official: the rows of the file, sizes interleaved; `lengths` has no meaning there. loom: samples at every
        length, the lengths in turn, each drawn from its own id."""
        if self._options.variant == "loom":
            for i in range(self._options.samples):
                for length in dict.fromkeys(lengths or self._options.levels):
                    yield self._own(task, tokenizer, length, i)
            return
        source, rows = self._source(task.name), []
        for record in read_records(data, source, FIELDS):
            if sample := self._read(task, record, source, data):
                rows.append(sample)
        yield from (rows[i] for i in sorted(range(len(rows)), key=_mirrored))

    def _read(self, task: Task, record: Record, source: DataSource, data: Data) -> Sample | None:
        """A row of the authors' file; None where its size is not asked for, or where it is noted as bad."""
        size = record["context_size"]
        step, rest = divmod(size, NOMINAL[task.language])
        if self._options.sizes and (rest or step not in self._options.sizes):
            return None
        question, asked, right = record["question"], record["retrieval_question"], record["reference_counting_results"]
        if not asked or not question.endswith(asked):
            why = ("retrieval_question", "it does not end the question")
            data.bad[BadRecord(pin=source.pin, place=f"line {record.number}", field=why[0], why=why[1])] = None
            return None
        context = question.removesuffix(asked)
        lines, reasoning = star_lines(context), task.name.endswith("reasoning")
        if [numbers[-1] for _, _, numbers in lines] != right or (reasoning and any(len(n) != 2 for _, _, n in lines)):
            why = ("reference_counting_results", "the counts of the text are others")
            data.bad[BadRecord(pin=source.pin, place=f"line {record.number}", field=why[0], why=why[1])] = None
            return None
        prompt = Prompt(segments=(segment("context", context), segment("question", asked)))
        return _sample(
            task, f"{task.name}-{size}", prompt, KEYS[task.language], f"{4 * step}k" if not rest else str(size)
        )

    def _own(self, task: Task, tokenizer: Tokenizer | None, length: int, index: int) -> Sample:
        wording, name = WORDINGS[task.language], f"{task.name}-t{length}-{index}"
        draw = random.Random(f"counting-stars {self._options.seed} {name}")
        counts = Counts.drawn(draw, self._options.stars)
        reasoning = task.name.endswith("reasoning")
        prompt = fitted(wording, Filler(task.language, draw), counts, reasoning, tokenizer, length)
        level = f"{length // 1024}k" if length % 1024 == 0 else str(length)
        return _sample(task, name, prompt, wording.key, level, estimated=tokenizer is None)

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """The mean of each task over its sizes, three decimals, and the mean of the four, as in the authors' table."""
        lines: list[Line] = []
        for prefix in ("", PREFIX):
            of = [line for line in super().aggregate(rows) if line.name in {prefix + form for form in FORMS}]
            lines += [replace(line, digits=3, note=_mended(line, rows)) for line in of]
            known = [line.value for line in of if line.value is not None]
            if of and len(of) > 1:
                lines.append(
                    Line(
                        name=f"{prefix}average",
                        metric="counting_stars",
                        value=sum(known) / len(known) if known and len(known) == len(of) else None,
                        n=sum(line.n for line in of),
                        missing=sum(line.missing for line in of),
                        digits=3,
                        note="" if len(known) == len(FORMS) else f"mean of {len(known)} of {len(FORMS)} tasks",
                        rows=rows_of(of),
                    )
                )
        return lines

    @staticmethod
    def score_gold(row: Mapping[str, Json]) -> float:
        """The official score of a gold row, three decimals; its references name the right and the mistaken counts."""
        task, catalog = str(row["task"]), installed()
        kind = "reasoning" if "rea" in task.lower() and "sea" not in task.lower() else "searching"
        metric: Metric = catalog.load(catalog.metrics.get(METRICS[kind]))()
        references = row["references"]
        sample = Sample(
            id="gold",
            task=task,
            prompt=Prompt(segments=()),
            references=tuple(references["reference_counting_results"]),
            meta={"wrong": references.get("r_stars"), "key": KEYS["zh" if "zh" in task.lower() else "en"]},
        )
        prediction = row["prediction"] if isinstance(row["prediction"], str) else ""
        return round(metric.score(prediction, sample).value or 0.0, 3)


def star_lines(context: str) -> list[tuple[int, int, list[int]]]:
    """(start, end, numbers) of each line with a star, in the order of the text."""
    return [
        (match.start(), match.end(), [int(found) for found in NUMBER.findall(match[0])])
        for match in STAR_LINE.finditer(context)
    ]


def _sample(task: Task, name: str, prompt: Prompt, key: str, level: str, *, estimated: bool = False) -> Sample:
    """A sample whose references, mistaken counts and evidence are read from the lines of its context."""
    lines = star_lines(prompt.context)
    if not lines or any(not numbers for _, _, numbers in lines):
        raise DataError("a text has a star line without a count", where=f"counting-stars, sample {name}")
    right = tuple(numbers[-1] for _, _, numbers in lines)
    meta: dict[str, Json] = {"key": key, "oracle": json.dumps({key: list(right)}, ensure_ascii=False)}
    if task.name.endswith("reasoning"):
        meta["wrong"] = [numbers[0] for _, _, numbers in lines]
    if estimated:
        meta["length_estimated"] = True
    return Sample(
        id=name,
        task=task.name,
        prompt=prompt,
        references=right,
        level=level,
        evidence=tuple(Evidence(segment=0, start=start, end=end) for start, end, _ in lines),
        meta=meta,
    )


def _mended(line: Line, rows: Sequence[Graded]) -> str:
    """How many English answers have a value that the authors' program does not give: it ends where JSON is broken."""
    if not line.name.removeprefix(PREFIX).startswith("en_"):
        return ""
    scored = [row.scored[line.metric] for row in rows if row.task == line.name and line.metric in row.scored]
    n = sum(bool(one.detail.get("mended")) for one in scored)
    return (
        f"{n} of {len(scored)} answers are broken JSON, which loom mends and the authors' program ends on" if n else ""
    )


def _mirrored(i: int) -> int:
    """Five binary digits in reverse: any first n of 32 sizes are spread over all."""
    return int(f"{i:05b}"[::-1], 2)
