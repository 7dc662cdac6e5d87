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

from loom_bench_lciteeval.plugin import CONTROLLED, TASKS, LCiteEvalOptions
from loom_bench_lciteeval.prompts import Settings, Wording, passage_text, read_settings, read_wording
from loom_bench_lciteeval.scoring import gold_score, table
from loom_core.contracts import BenchmarkBase, Data, Graded, Line, Tokenizer
from loom_core.data import read_pins
from loom_core.errors import DataError
from loom_core.records import (
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
from loom_core.types import DataSource, Generation, Json, Sample, Task

FOLDERS = {"main": "l-citeeval", "length": "l-citeeval-length", "hardness": "l-citeeval-hardness"}
SUMMARIES = ("gov_report", "multi_news", "qmsum")
KNOWN_PASSAGES = ("niah", "counting_stars")
CITATIONS = ("citation_recall", "citation_precision", "citation_f1", "citation_count")
PASSAGES = ("lciteeval_passage_recall", "lciteeval_passage_precision", "lciteeval_passage_f1")
MAX_TOKENS = {"natural_questions": 200, "hotpotqa": 200, "2wikimultihopqa": 200, "locomo": 200, "dialsim": 200}
MAX_TOKENS |= {"niah": 128, "counting_stars": 128}
OTHERS_MAX_TOKENS = 800
"""Summaries, and narrativeqa: the authors' list of tasks with 200 misspells it."""
BUCKETS = (8, 16, 24, 32, 40, 48)
STARS = re.compile(r"little penguin counted (\d+) ★")
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
        folder = FOLDERS[self._options.variant]
        return self._pin(f"config/{folder}/{base}.yaml"), self._pin(f"data/L-CiteEval/{folder}/{base}.json")

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
            version="1",
            capability="faithfulness",
            metrics=metrics_of(base),
            generation=Generation(max_tokens=MAX_TOKENS.get(base, OTHERS_MAX_TOKENS), stop=("\n",)),
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
        fields: Mapping[str, Check] = FIELDS if base in SUMMARIES and base != "qmsum" else {**FIELDS, "question": text}
        seen: dict[str, int] = {}
        for record in read_records(data, records, fields, form="json"):
            one = self._sample(task, base, record, wording, settings)
            # Some ids stand several times in a file; they are told apart by their order.
            times = seen[one.id] = seen.get(one.id, 0) + 1
            yield one if times == 1 else _renamed(one, f"{one.id}#{times}")

    def _sample(self, task: Task, base: str, record: Record, wording: Wording, settings: Settings) -> Sample:
        asked = record.get("question")
        documents = tuple(map(passage_text, record["docs"][: settings.most]))
        answer = record["answer"]
        references = tuple(answer) if isinstance(answer, list) else (answer,)
        meta: dict[str, Json] = {"oracle": oracle(base, references, documents)}
        if base in KNOWN_PASSAGES:
            meta |= {"passages": known_passages(base, references, documents), "cited_as": cited_as(base)}
        return Sample(
            id=str(record["id"]),
            task=task.name,
            prompt=wording.prompt(asked, record["docs"], record.get("role"), settings.shots, settings.most),
            references=references,
            level=self._level(record),
            documents=documents,
            meta=meta,
        )

    def _level(self, record: Record) -> str | None:
        """The bucket of the record's own length, or its hardness; None where the record says neither."""
        if self._options.variant == "hardness":
            found = record.get("hardness") or record.get("level")
            return str(found) if found else None
        length = record.get("length")
        if length is None:
            return None
        bucket = next((size for size in BUCKETS if length <= 1000 * size), BUCKETS[-1])
        return f"{bucket}k"

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
    """The numbers (from 1) of the passages that hold the answer: the counted stars, or the needle's text."""
    if base == "counting_stars":
        wanted = set(map(str, references))
        return [i for i, text in enumerate(documents, 1) if any(n in wanted for n in STARS.findall(text))]
    needle = str(references[0]).strip().rstrip(".").lower()
    return [i for i, text in enumerate(documents, 1) if needle and needle in text.lower()]


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
