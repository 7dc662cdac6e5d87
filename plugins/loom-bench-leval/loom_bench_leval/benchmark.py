"""L-Eval: its tasks, samples, sci_fi's second call and scores. Knows no model; reads everything through `Data`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from loom_bench_leval.official import Unreadable, read_wording
from loom_bench_leval.plugin import EXAM, F1, ROUGE, TASKS, LEvalOptions
from loom_bench_leval.table import ROUGE_PARTS, geometric_mean, metric_names, table
from loom_bench_leval.wording import Wording, kind_of, loom_wording
from loom_core.api import (
    BadRecord,
    BenchmarkBase,
    Data,
    DataSource,
    Generation,
    Graded,
    Json,
    Line,
    Metric,
    Pinned,
    PluginError,
    Prompt,
    Response,
    Sample,
    Scored,
    Task,
    Tokenizer,
    Truncation,
    Turn,
    Unavailable,
    gold_scored,
    records,
    segment,
)

NEW_TOKENS, STEP_WORDS = 512, 250
"""Tokens of an answer, kept free by the authors when they cut a document; words by which they shorten it at a time."""
CONFIG, SCRIPT = "leval/Baselines/LEval_config.py", "leval/Baselines/turbo16k-test.py"
NO_RETRIEVAL = ("tv_show_summ", "patent_summ", "paper_assistant", "news_summ", "gov_report_summ", "codeU")
CHANCE = {"quality": 0.25, "tpo": 0.25, "sci_fi": 0.5}
TOPICS = 3
SECOND_TEXT = "second_call"
ASKED = ("exam", "f1", "rouge")
FIELDS: Mapping[str, records.Check] = {
    "input": records.text,
    "instructions": records.listed(records.text, at_least=1),
    "outputs": records.listed(records.text, at_least=1),
    "evaluation": records.text,
}


@dataclass(frozen=True, slots=True)
class _Document:
    """A document, cut if asked, its questions, and the number of its first question in the task."""

    number: int
    text: str
    questions: tuple[tuple[str, str], ...]
    first: int
    cut: bool


class LEval(Pinned, BenchmarkBase):
    """The tasks of a group."""

    def __init__(self, options: LEvalOptions) -> None:
        self._options = options

    def _records(self, task: str) -> DataSource:
        folder = "Closed-ended-tasks" if task in EXAM else "Open-ended-tasks"
        return self.pins[f"leval/LEval-data/{folder}/{task}.jsonl"]

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """The tasks of the group, exams first."""
        groups = {"all": TASKS, "exam": EXAM, "f1": F1, "rouge": ROUGE, "open": (*F1, *ROUGE)}
        return tuple(self._task(name) for name in groups[self._options.group])

    def _task(self, name: str) -> Task:
        programs = () if self._options.wording == "loom" else (self.pins[CONFIG], self.pins[SCRIPT])
        return Task(
            name=name,
            version="2",
            capability="general",
            metrics=metric_names(name),
            generation=Generation(max_tokens=NEW_TOKENS),
            truncation=Truncation(scope="document", side="left" if kind_of(name) == "code" else "right"),
            chance=CHANCE.get(name),
            sources=(*programs, self._records(name)),
            licence="repository GPL-3.0; documents keep the terms of their sources",
            retrieval=name not in NO_RETRIEVAL,
        )

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """One question of every document, then another of every one, and so on; a document begins with the question
        after the one its predecessor began with, so that the first n are spread over topics and kinds of question.

        Documents that the authors list again for judges and people (evaluation "LLM" or "human") are not asked twice.
        Raises Unavailable where a file is missing.
        """
        data.path(self._records(task.name))
        wording = self._wording(data)
        found = [
            [_sample(task.name, wording, document, i) for i in rotated(len(document.questions), at)]
            for at, document in enumerate(self._documents(task.name, data, tokenizer))
        ]
        for together in zip_longest(*found):
            yield from (sample for sample in together if sample is not None)

    def _wording(self, data: Data) -> Wording:
        """The wording that the options ask for; what stands in for the authors' is told in `data.notes`."""
        if self._options.wording == "loom":
            return loom_wording(TASKS)
        config, script = self.pins[CONFIG], self.pins[SCRIPT]
        try:
            return read_wording(data.text(config), data.text(script), TASKS, where=f"{config.pin}, {script.pin}")
        except (Unavailable, Unreadable) as error:
            if self._options.wording == "official":
                raise
            why = f"{error.what}: {error.why}" if isinstance(error, Unreadable) else error.what
            data.notes[f"leval asks in loom's own wording, not the authors': {why}"] = None
            return loom_wording(TASKS)

    def _documents(self, task: str, data: Data, tokenizer: Tokenizer | None) -> Iterator[_Document]:
        first, source = 0, self._records(task)
        for record in records.read_records(data, source, FIELDS):
            questions = tuple(zip(record["instructions"], record["outputs"], strict=False))
            if len(record["instructions"]) != len(record["outputs"]):
                why = f"{len(record['outputs'])} for {len(record['instructions'])} instructions"
                data.bad[BadRecord(pin=source.pin, place=f"line {record.number}", field="outputs", why=why)] = None
            elif record["evaluation"] in ASKED:
                text = self._cut(record["input"], task, tokenizer)
                yield _Document(record.number, text, questions, first, text != record["input"])
                first += len(questions)

    def _cut(self, text: str, task: str, tokenizer: Tokenizer | None) -> str:
        """The authors' cut: whole words go from the end (codeU: from the beginning) until the document fits."""
        if self._options.max_length is None:
            return text
        if tokenizer is None:
            raise PluginError(
                "leval@max_length counts tokens, and this server keeps its tokenizer to itself",
                hint="leave max_length out",
            )
        limit = self._options.max_length - NEW_TOKENS
        return cut_by_words(text, tokenizer, limit, from_left=kind_of(task) == "code")

    def follow_up(self, sample: Sample, responses: Sequence[Response]) -> Turn | None:
        """sci_fi asks a second time what is so in the real world: a second message of the user behind the first, whose
        answer is not among the messages (or, with `second=alone`, that message by itself)."""
        text = sample.meta.get(SECOND_TEXT)
        if text is None or len(responses) > 1:
            return None
        before = () if self._options.second == "alone" else sample.prompt.segments
        prompt = Prompt(segments=(*before, replace(segment("question", text), apart=bool(before))))
        return Turn(prompt=prompt, generation=Generation(max_tokens=NEW_TOKENS))

    def score(
        self, sample: Sample, responses: Sequence[Response], metrics: Mapping[str, Metric]
    ) -> Mapping[str, Scored]:
        """Each metric on the stripped answer; sci_fi's two answers are put together as the authors do."""
        text = responses[0].text.strip()
        if len(responses) > 1:
            text = f"{text} [fact: {responses[1].text.strip()}]"
        return {name: metric.score(text, sample) for name, metric in metrics.items()}

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """The authors' table: by task; topics and judgements apart; summaries by geometric mean."""
        return table(rows)

    @staticmethod
    def score_gold(row: Mapping[str, Json]) -> Json:
        """The official score of a gold row: 0 to 100; a list of two for sci_fi; a mapping for ROUGE, four decimals."""
        task, metric = str(row["task"]), str(row["metric"])
        if metric == "rouge":
            parts = {name: 100 * _value(gold_scored(ours, row)) for name, ours in ROUGE_PARTS.items()}
            return {
                **{name: round(value, 4) for name, value in parts.items()},
                "geometric_mean": round(geometric_mean(parts.values()), 4),
            }
        if metric == "f1":
            return 100 * _value(gold_scored("leval_f1", row))
        values = [100 * _value(gold_scored(name, row)) for name in metric_names(task)]
        return values if task == "sci_fi" else values[0]


def _value(scored: Scored) -> float:
    return scored.value or 0.0


def rotated(n: int, start: int) -> list[int]:
    """0 to n - 1, beginning with `start` modulo n."""
    return [(start + i) % n for i in range(n)]


def cut_by_words(text: str, tokenizer: Tokenizer, limit: int, *, from_left: bool) -> str:
    """The document with so few words, at first `limit`, then 250 fewer each time, that it has at most `limit` tokens.

    Words are what single spaces part, so that line feeds and runs of spaces stay. As upstream, each round cuts what the
    last one left, and once the number to keep is below zero it is the number to leave out at the other end.
    """
    cut = 0
    while len(tokenizer.encode(text)) > limit:
        words = text.split(" ")
        text = " ".join(words[cut - limit :] if from_left else words[: limit - cut])
        cut += STEP_WORDS
    return text


def _sample(task: str, wording: Wording, document: _Document, i: int) -> Sample:
    instruction, reference = document.questions[i]
    meta: dict[str, Json] = {"wording": wording.name, **_oracle(task, reference)}
    if document.cut:
        meta["cut"] = True
    if kind_of(task) == "topic":
        meta["topic"] = (document.first + i) % TOPICS
    if kind_of(task) == "truth":
        meta[SECOND_TEXT] = wording.second.text(instruction)
    mark = "loom-" if wording.name == "loom" else ""
    return Sample(
        id=f"{mark}{task}-{document.number}-{i + 1}",
        task=task,
        prompt=wording.prompt(task, document.text, instruction, len(reference.split())),
        references=(reference,),
        cluster=f"{task}-{document.number}",
        meta=meta,
    )


def _oracle(task: str, reference: str) -> dict[str, Json]:
    """What a perfect model says, where that is not the reference itself."""
    if kind_of(task) == "choice":
        # "(D) Because they …": the authors read the letters of the first word.
        first = (reference.split() or [""])[0]
        return {"oracle": "".join(re.findall("[A-D]", first)) or reference}
    if kind_of(task) == "truth" and (found := re.fullmatch(r"(.*?)\s*\[fact:\s*(.*?)\]\s*", reference, re.S | re.I)):
        return {"oracle_turns": [found[1], found[2]]}
    return {}
