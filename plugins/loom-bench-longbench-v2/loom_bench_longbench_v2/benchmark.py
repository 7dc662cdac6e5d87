"""LongBench v2: its samples in one of four modes, the second call, and the authors' table. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from loom_bench_longbench_v2.plugin import LongBenchV2Options
from loom_bench_longbench_v2.prompts import fill, question, with_thoughts
from loom_core.api import (
    BenchmarkBase,
    Data,
    DataSource,
    Generation,
    Graded,
    Json,
    Line,
    Pinned,
    Response,
    Sample,
    Task,
    Tokenizer,
    Truncation,
    Turn,
    digest,
    gold_scored,
    mean_line,
    records,
)

FOLDER = "longbench_v2"
TEMPLATES = {"direct": "0shot", "cot": "0shot_cot", "no_context": "0shot_no_context", "rag": "0shot_rag"}
SECOND_CALL = "0shot_cot_ans"
ACCURACY, COMPENSATED = "longbench_v2_choice", "longbench_v2_choice_compensated"
LETTERS = ("A", "B", "C", "D")
DIFFICULTIES, LENGTHS = ("easy", "hard"), ("short", "medium", "long")
ANSWER = Generation(max_tokens=128, temperature=0.1)
THINKING = Generation(max_tokens=1024, temperature=0.1)
SECOND_TEXT = "second_call"
CLUSTER_DIGITS = 16
FIELDS: Mapping[str, records.Check] = {
    "_id": records.text,
    "domain": records.text,
    "sub_domain": records.text,
    "difficulty": records.one_of(*DIFFICULTIES),
    "length": records.one_of(*LENGTHS),
    "question": records.text,
    **{f"choice_{letter}": records.text for letter in LETTERS},
    "answer": records.one_of(*LETTERS),
    "context": records.text,
}


class LongBenchV2(Pinned, BenchmarkBase):
    """One task, named after the mode."""

    def __init__(self, options: LongBenchV2Options) -> None:
        self._options = options

    def _template(self, name: str) -> DataSource:
        return self.pins[f"{FOLDER}/prompts/{name}.txt"]

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """The task of the mode."""
        mode, cot = self._options.mode, self._options.mode == "cot"
        templates = (self._template(TEMPLATES[mode]), *([self._template(SECOND_CALL)] if cot else []))
        return (
            Task(
                name=mode,
                version="2",
                capability="reasoning",
                metrics=(ACCURACY, COMPENSATED),
                generation=THINKING if cot else ANSWER,
                truncation=Truncation(scope="prompt", side="middle", limit=self._options.max_length, decoded="whole"),
                chance=0.25,
                sources=(*templates, self.pins[f"{FOLDER}/data.json"]),
                licence="prompts MIT; records Apache-2.0",
                retrieval=mode != "no_context",
            ),
        )

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """The records in the authors' order. Raises Unavailable where a file is missing."""
        template = data.text(self._template(TEMPLATES[task.name]))
        second = data.text(self._template(SECOND_CALL)) if task.name == "cot" else None
        for record in records.read_records(data, self.pins[f"{FOLDER}/data.json"], FIELDS, form="json"):
            yield sample_of(task.name, template, second, record.values)

    def follow_up(self, sample: Sample, responses: Sequence[Response]) -> Turn | None:
        """In the mode `cot`, the question again with the model's thoughts and without the text."""
        text = sample.meta.get(SECOND_TEXT)
        if text is None or len(responses) > 1:
            return None
        return Turn(prompt=with_thoughts(text, responses[0].text), generation=ANSWER)

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """Accuracy in per cent, one decimal: overall, by difficulty, by length; plain, then compensated."""
        lines = []
        for metric in (ACCURACY, COMPENSATED):
            for name, belongs in PARTS.items():
                if members := [row for row in rows if belongs(row.sample)]:
                    lines.append(mean_line(name, metric, members, digits=1, of_sum=True))
        return lines

    @staticmethod
    def score_gold(row: Mapping[str, Json]) -> Json:
        """What the authors' `extract_answer` reads from the prediction (a letter or None); else 0 or 1."""
        if row.get("metric") == "extract_answer":
            # What is read from the prediction does not hang on the key, which a row may lack.
            return gold_scored(ACCURACY, {**row, "references": ["A"]}).extracted
        return gold_scored(ACCURACY, row).value


def _difficulty(wanted: str) -> Callable[[Sample], bool]:
    return lambda sample: sample.meta["difficulty"] == wanted


def _length(wanted: str) -> Callable[[Sample], bool]:
    return lambda sample: sample.level == wanted


PARTS: Mapping[str, Callable[[Sample], bool]] = {
    "overall": lambda sample: True,
    **{name: _difficulty(name) for name in DIFFICULTIES},
    **{name: _length(name) for name in LENGTHS},
}


def sample_of(mode: str, template: str, second: str | None, record: Mapping[str, Json]) -> Sample:
    """The sample of a record. template, second: the texts of the first call and, where there is one, of the second."""
    meta: dict[str, Json] = {name: record[name] for name in ("domain", "sub_domain", "difficulty")}
    meta["oracle"] = f"The correct answer is ({record['answer']})"
    if second is not None:
        meta[SECOND_TEXT] = question(second, record)
    return Sample(
        id=record["_id"],
        task=mode,
        prompt=fill(template, record),
        references=(record["answer"],),
        level=record["length"],
        cluster=digest(record["context"])[:CLUSTER_DIGITS],
        meta=meta,
    )
