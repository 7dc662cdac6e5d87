"""L-CiteEval: its tasks, samples and table. Knows no model; reads upstream files through `Data`.

Sources: ZetangForward/L-CITEEVAL, config/, prompt/, script/inference_1shot_vllm.py (limits), script/eval_correct.py and
script/eval_citation.py (scores), as facts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from loom_bench_lciteeval.passages import needle_passage, star_passages
from loom_bench_lciteeval.plugin import CONTROLLED, TASKS, LCiteEvalOptions
from loom_bench_lciteeval.prompts import (
    Settings,
    Wording,
    passage_text,
    passage_title,
    read_settings,
    read_wording,
)
from loom_bench_lciteeval.scoring import bucket, gold_score, table
from loom_core.api import (
    BenchmarkBase,
    Data,
    DataError,
    DataSource,
    Generation,
    Graded,
    Json,
    Line,
    Sample,
    Task,
    Tokenizer,
    read_pins,
)
from loom_core.api.records import (
    Check,
    Record,
    anything,
    either,
    listed,
    mapping,
    number,
    optional,
    read_records,
    text,
    whole,
)

FOLDERS = {"main": "l-citeeval", "length": "l-citeeval-length", "hardness": "l-citeeval-hardness"}
RECORDS = {"main": "L-CiteEval-Data", "length": "L-CiteEval-Length", "hardness": "L-CiteEval-Hardness"}
"""The folders of the run configurations in the repository, and of the records on the hub."""
SUMMARIES = ("gov_report", "multi_news", "qmsum")
KNOWN_PASSAGES = ("niah", "counting_stars")
CITATIONS = ("citation_recall", "citation_precision", "citation_f1", "citation_count")
PASSAGES = tuple(f"lciteeval_passage_{part}" for part in ("recall", "precision", "f1", "count"))
MAX_TOKENS = {"natural_questions": 200, "hotpotqa": 200, "2wikimultihopqa": 200, "locomo": 200, "dialsim": 200}
MAX_TOKENS |= {"niah": 128, "counting_stars": 128}
OTHERS_MAX_TOKENS = 800
"""Summaries, and narrativeqa: the authors' list of tasks with 200 misspells it."""
FIELDS: Mapping[str, Check] = {
    "id": either(text, whole),
    "question": optional(text),
    "answer": either(text, whole, listed(anything, at_least=1)),
    "docs": either(listed(text, at_least=1), listed(mapping, at_least=1)),
    "length": optional(number),
    "role": optional(text),
}


class LCiteEval(BenchmarkBase):
    """The tasks of one collection."""

    def __init__(self, options: LCiteEvalOptions) -> None:
        self._options = options

    @cached_property
    def _pins(self) -> Mapping[str, DataSource]:
        return read_pins(Path(__file__))

    def sources(self) -> tuple[DataSource, ...]:
        """Every file that any options need."""
        return tuple(self._pins.values())

    def _pin(self, path: str) -> DataSource:
        if (pin := self._pins.get(f"l_citeeval/{path}")) is None:
            raise DataError("a run configuration names a file that is not pinned", where=path)
        return pin

    def _files(self, base: str) -> tuple[DataSource, DataSource]:
        """The run configuration and the records of a task."""
        variant = self._options.variant
        return self._pin(f"config/{FOLDERS[variant]}/{base}.yaml"), self._pin(f"{RECORDS[variant]}/{base}.json")

    @property
    def _stop(self) -> tuple[str, ...]:
        return ("\n",) if self._options.stop == "newline" else ()

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """The tasks of the collection; those of a graded one carry its name."""
        variant = self._options.variant
        bases = TASKS if variant == "main" else CONTROLLED
        return tuple(self._task(base, base if variant == "main" else f"{base}_{variant}") for base in bases)

    def _task(self, base: str, name: str) -> Task:
        config, records = self._files(base)
        stem = "2WikiMultihopQA" if base == "2wikimultihopqa" else base
        return Task(
            name=name,
            version="2",
            capability="faithfulness",
            metrics=metrics_of(base),
            generation=Generation(max_tokens=MAX_TOKENS.get(base, OTHERS_MAX_TOKENS), stop=self._stop),
            chance=0.0,
            sources=(config, self._pin(f"prompt/{stem}_default.json"), records),
            licence="none stated",
            retrieval=base not in SUMMARIES,
        )

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """The records in their order, each with the authors' one-shot prompt."""
        base = task.name.removesuffix(f"_{self._options.variant}")
        config, records = self._files(base)
        settings = read_settings(data.text(config), config)
        source = self._pin(settings.prompt_file)
        wording = read_wording(data.text(source), source)
        fields = fields_of(base)
        seen: dict[str, int] = {}
        for record in read_records(data, records, fields, form="json"):
            one = self._sample(task, base, record, wording, settings)
            # Some ids stand several times in a file; they are told apart by their order.
            times = seen[one.id] = seen.get(one.id, 0) + 1
            yield one if times == 1 else _renamed(one, f"{one.id}#{times}")

    def _sample(self, task: Task, base: str, record: Record, wording: Wording, settings: Settings) -> Sample:
        asked, docs = record.get("question"), record["docs"][: settings.most]
        documents, titles = tuple(map(passage_text, docs)), list(map(passage_title, docs))
        answer = record["answer"]
        references = tuple(answer) if isinstance(answer, list) else (answer,)
        meta: dict[str, Json] = {"oracle": oracle(base, references, documents)}
        if any(title is not None for title in titles):
            meta["titles"] = titles
        if record.get("length") is not None:
            meta["length"] = record["length"]
        if base in KNOWN_PASSAGES:
            meta |= {"passages": known_passages(base, references, documents), "cited_as": cited_as(base)}
        return Sample(
            id=str(record["id"]),
            task=task.name,
            prompt=wording.prompt(asked, record["docs"], record.get("role"), settings.shots, settings.most),
            references=references,
            level=self._level(record, task.name),
            documents=documents,
            meta=meta,
        )

    def _level(self, record: Record, task: str) -> str | None:
        """The authors' bucket of the record's own length, or its hardness; None where the record says neither."""
        if self._options.variant == "hardness":
            found = record.get("hardness") or record.get("level")
            return str(found) if found else None
        length = record.get("length")
        return None if length is None else bucket(length, task)

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """Means times 100 by task, and by length or hardness."""
        return table(rows)

    @staticmethod
    def score_gold(row: Mapping[str, Json]) -> Json:
        """The official score of a gold row, in its shape."""
        return gold_score(row)


def _renamed(sample: Sample, name: str) -> Sample:
    return replace(sample, id=name)


def metrics_of(base: str) -> tuple[str, ...]:
    """The metrics of a task; correctness first."""
    if base in SUMMARIES:
        return ("lciteeval_rouge_l", *CITATIONS)
    if base == "niah":
        return ("lciteeval_niah", *PASSAGES)
    if base == "counting_stars":
        return ("lciteeval_counting_stars", *PASSAGES)
    return ("lciteeval_f1", "lciteeval_precision", "lciteeval_recall", *CITATIONS)


def cited_as(base: str) -> str:
    """Where an answer has its citations."""
    return "json" if base == "counting_stars" else "line"


def known_passages(base: str, references: Sequence[Json], documents: Sequence[str]) -> list[int]:
    """The numbers (from 1) of the passages that hold the answer: those that count stars, or the needle's first."""
    return star_passages(documents) if base == "counting_stars" else needle_passage(str(references[0]), documents)


def fields_of(base: str) -> Mapping[str, Check]:
    """What a record of the task must have: the authors' scorers take one text only where they make ROUGE."""
    question = optional(text) if base in SUMMARIES and base != "qmsum" else text
    answer = {"answer": text} if base in SUMMARIES or base == "niah" else {}
    return {**FIELDS, "question": question, **answer}


def oracle(base: str, references: Sequence[Json], documents: Sequence[str]) -> str:
    """An answer that deserves full correctness (and full citations, where the passages are known)."""
    passages = known_passages(base, references, documents) if base in KNOWN_PASSAGES else []
    if base == "counting_stars":
        return json.dumps({"little_penguin": list(references), "passage_id": passages})
    line = " ".join(str(references[0]).split())
    if base in SUMMARIES:
        # Behind an announcement nothing of the summary is taken for one. White space behind the last stop is a word
        # to the scorer's sentence split; a lone full stop puts it back after stripping.
        return f"Summary: {line}" + (" ." if re.search(r"\.\s+$", str(references[0])) else "")
    return line + "".join(f" [{number}]" for number in passages[:1])
