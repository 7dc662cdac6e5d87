"""Citations of niah and counting_stars, whose right passages are known. Knows numbers and text; no model is asked.

Source: ZetangForward/L-CITEEVAL@6e49326, script/eval_citation.py (compute_niah_citation,
compute_counting_stars_citation), as facts. Where that code raises on an answer, or on a record, every part is 0 and the
detail names what is raised; one answer that it leaves out of the mean number of citations says so in its detail.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import Json, Sample, Scored

AT_MOST = 3
"""Citations of niah that count, from the first (the authors' `--at_most_citations`); counting_stars has no limit."""
STARS = "The little penguin counted"
LEFT_OUT = "left out"
"""How the detail of a score begins that the authors' mean leaves out."""
_CITED = re.compile(r"\[(\d+)")
_LONGEST = 4000
"""Digits from which Python refuses to read a whole number."""
Part = Literal["recall", "precision", "f1", "count"]


def needle_passage(answer: str, documents: Sequence[str]) -> list[int]:
    """The number (from 1) of the first passage that holds the answer, case kept; empty where none does."""
    return next(([i] for i, text in enumerate(documents, 1) if answer in text), [])


def star_passages(documents: Sequence[str]) -> list[int]:
    """The numbers (from 1) of the passages in which stars are counted."""
    return [i for i, text in enumerate(documents, 1) if STARS in text]


@dataclass(frozen=True, slots=True)
class Found:
    """What an answer cites: passages that count, and how many of them are right."""

    cited: tuple[Json, ...]
    hits: int


class _Raised(Exception):
    """The authors' function raises here; the text says what."""


def cited_in_line(prediction: str, gold: Sequence[int], at_most: int = AT_MOST) -> Found:
    """The first citations of the first line; repeated ones count, and the right passage is one hit however often."""
    if not gold:
        raise _Raised("NameError: no passage holds the answer (later records: the passage of the record before)")
    numbers = _CITED.findall(prediction.strip().split("\n")[0])
    if any(len(number) > _LONGEST for number in numbers):
        raise _Raised("ValueError: a citation has too many digits")
    cited = tuple(map(int, numbers[:at_most]))
    return Found(cited, int(gold[0] in cited))


def cited_in_json(prediction: str, gold: Sequence[int]) -> Found | None:
    """The distinct values under `passage_id` of the object from the first "{" to the first "}"; None without such a
    list. Text that looks like a number is none: "2" is not 2."""
    text = prediction.strip()
    start, end = text.find("{"), text.find("}")
    try:
        record = json.loads(text[start : end + 1]) if 0 <= start < end else {}
    except (ValueError, RecursionError):
        return Found((), 0)
    if not 0 <= start < end:
        return Found((), 0)
    if "passage_id" not in record:
        return None
    try:
        cited = tuple(set(record["passage_id"]))
    except TypeError as error:
        raise _Raised(f"TypeError: {error}") from error
    if not cited or not gold:
        raise _Raised("ZeroDivisionError: " + ("an empty passage_id" if gold else "no passage counts stars"))
    return Found(cited, sum(one in gold for one in cited))


@dataclass(frozen=True, slots=True)
class Passages:
    """One part of the overlap. meta: passages (numbers from 1 of those that hold the answer), cited_as (line, json)."""

    part: Part
    at_most: int = AT_MOST

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1, for the part "count" the number of citations; 0 where nothing is cited."""
        gold = [int(number) for number in sample.meta.get("passages") or ()]
        as_json = sample.meta.get("cited_as") == "json"
        try:
            found = cited_in_json(prediction, gold) if as_json else cited_in_line(prediction, gold, self.at_most)
        except _Raised as error:
            return Scored(value=0.0, detail={"official": f"raises: {error}"})
        if found is None:
            detail = {"official": f"{LEFT_OUT}: the answer has no passage_id"} if self.part == "count" else {}
            return Scored(value=0.0, detail=detail)
        # A needle has one passage, so its recall is 1 however many citations repeat it.
        recall = found.hits / (len(gold) if as_json else 1)
        precision = found.hits / len(found.cited) if found.cited else 0.0
        f1 = 2 * recall * precision / (recall + precision) if found.hits else 0.0
        value = {"recall": recall, "precision": precision, "f1": f1, "count": len(found.cited)}[self.part]
        return Scored(value=float(value), extracted=list(found.cited))


def passage_recall() -> Passages:
    """Known passages that are cited."""
    return Passages("recall")


def passage_precision() -> Passages:
    """Cited passages that are known to hold the answer."""
    return Passages("precision")


def passage_f1() -> Passages:
    """The harmonic mean of both."""
    return Passages("f1")


def passage_count() -> Passages:
    """Citations that count."""
    return Passages("count")
