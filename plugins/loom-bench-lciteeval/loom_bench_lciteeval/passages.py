"""Citations of niah and counting_stars, whose right passages are known. Knows numbers and sets; no model is asked.

Source: ZetangForward/L-CITEEVAL, script/eval_citation.py, as facts: niah looks for the gold passage among the citations
of the first line, counting_stars compares the set of `passage_id`. How these become recall, precision and F1 is defined
here: over sets of passage numbers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from loom_core.types import Sample, Scored

_CITED = re.compile(r"\[(\d+)")
Part = Literal["recall", "precision", "f1"]


def cited_in_line(prediction: str) -> list[int]:
    """The passages cited in the first line, as numbers from 1."""
    return [int(number) for number in _CITED.findall(prediction.strip().split("\n")[0])]


def cited_in_json(prediction: str) -> list[int] | None:
    """The list under `passage_id` of the object from the first "{" to the first "}" after it; None without one."""
    start = prediction.find("{")
    end = prediction.find("}", start)
    if start < 0 or end < 0:
        return None
    try:
        found = json.loads(prediction[start : end + 1])["passage_id"]
        return [int(number) for number in found]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Passages:
    """One part of the overlap. meta: passages (numbers from 1 of those that hold the answer), cited_as (line, json)."""

    part: Part

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1; 0 where nothing is cited; None where no passage is known to hold the answer."""
        gold = {int(number) for number in sample.meta.get("passages") or ()}
        if not gold:
            return Scored(value=None, detail={"error": "no passage is known to hold the answer"})
        found = cited_in_json(prediction) if sample.meta.get("cited_as") == "json" else cited_in_line(prediction)
        cited = set(found or ())
        hits = len(cited & gold)
        recall, precision = hits / len(gold), hits / len(cited) if cited else 0.0
        f1 = 2 * recall * precision / (recall + precision) if hits else 0.0
        value = {"recall": recall, "precision": precision, "f1": f1}[self.part]
        return Scored(value=value, extracted=sorted(cited))


def passage_recall() -> Passages:
    """Known passages that are cited."""
    return Passages("recall")


def passage_precision() -> Passages:
    """Cited passages that are known to hold the answer."""
    return Passages("precision")


def passage_f1() -> Passages:
    """The harmonic mean of both."""
    return Passages("f1")
