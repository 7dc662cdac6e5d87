"""Collected star counts: Counting-Stars (searching and reasoning) and the task of that name in L-CiteEval.

An answer is a JSON object with a list under "little_penguin" or "小企鹅". Imports json_repair on use.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loom_core.api import Json, Metric, Sample, Scored
from loom_metric_text.reference import failed, needed, no_reference

KEYS = ("little_penguin", "小企鹅")
_read: Callable[[str], Json] = json.JSONDecoder().decode


def _listed(record: Json, key: Json) -> list[Json] | None:
    if not isinstance(record, dict):
        return None
    for name in (key,) if key else KEYS:
        if name in record:
            found = record[name]
            return found if isinstance(found, list) else None
    return None


def collected(prediction: str, key: Json = None) -> list[Json] | None:
    """The list under the key, code fences dropped and broken JSON mended; None where there is none."""
    text = prediction.replace("```json", "").replace("```", "").strip() if "`" in prediction else prediction
    try:
        record = _read(text)
    except (ValueError, RecursionError):
        record = _mended(text)
    return _listed(record, key)


def _is_json(text: str) -> bool:
    try:
        _read(text)
    except (ValueError, RecursionError):
        return False
    return True


def _mended(text: str) -> Json:
    from json_repair import repair_json

    try:
        return repair_json(text, return_objects=True)
    except (ValueError, RecursionError):
        return None


@functools.lru_cache(maxsize=1024)
def _distinct(counts: tuple[Json, ...]) -> bool:
    """True where no count is twice, so that a set's size counts the hits."""
    return len(set(counts)) == len(counts)


def wanted_counts(sample: Sample) -> Sequence[Json]:
    """The right counts: the references, or the list of a reference that is itself an answer ({"little_penguin": …})."""
    first = sample.references[0]
    listed = _listed(first, sample.meta.get("key")) if isinstance(first, dict) else None
    return sample.references if listed is None else listed


@dataclass(frozen=True, slots=True)
class CountingStars:
    """Counting-Stars: the mean over the stars. References: the right counts, or one answer that holds them.

    Searching: 1 where the right count is collected. Reasoning: 1 for the right count alone, 0.5 for right and wrong,
    0.25 for the wrong one alone. The list is cut to `most` items and then taken as a set.
    meta: wrong (reasoning: the mistaken counts, in the references' order), key (optional: "little_penguin" or
    "小企鹅"; both are looked for where it is absent).
    """

    reasoning: bool
    most: int = 32

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1; 0 where no list can be read. The authors round a mean to 3 decimals; here it is left whole."""
        if not sample.references:
            return no_reference()
        found = collected(prediction, sample.meta.get("key"))
        if found is None:
            return failed("no list of counts in the answer")
        found = found[: self.most]
        try:
            numbers = set(found)
        except TypeError:
            return failed("TypeError: a list in the list")
        # Whole numbers are wanted, so text that looks like one is not found: "15" is not 15.
        right = wanted_counts(sample)
        if not self.reasoning:
            once = _distinct(tuple(right))
            hits = float(len(numbers.intersection(right)) if once else sum(map(numbers.__contains__, right)))
        else:
            wrong = list(needed(sample, "wrong"))
            hits = sum(
                (0.5 if bad in numbers else 1.0) if good in numbers else 0.25 * (bad in numbers)
                for good, bad in zip(right, wrong, strict=True)
            )
        # viz.ipynb mends fenced answers, and all Chinese ones; on others its English part ends with an error.
        detail = {"mended": True} if "```" not in prediction and not _is_json(prediction) else {}
        return Scored(value=hits / len(right), extracted=found, detail=detail)


def counting_stars_searching() -> Metric:
    """Counting-Stars, searching (called acquisition in the authors' tables)."""
    return CountingStars(reasoning=False)


def counting_stars_reasoning() -> Metric:
    """Counting-Stars, reasoning."""
    return CountingStars(reasoning=True)


class CitedStars:
    """L-CiteEval's counting_stars: hits of the collected list over the number of references.

    Source: ZetangForward/L-CITEEVAL@6e49326, script/eval_correct.py, as facts. JSON is read from the first "{" to the
    first "}" of the answer; the list is cut to the number of references, and a count that is collected twice hits
    twice. The records hold whole numbers, so text that looks like one is no hit: "15" is not 15. The authors' function
    also looks at `passage_id`, and raises where it is empty or no list of plain values: 0 here, with what it raises.
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1; 0 where no list can be read."""
        if not sample.references:
            return no_reference()
        start, end = prediction.find("{"), prediction.find("}")
        if start < 0 or end < start:
            return failed("no JSON object in the answer")
        wanted = wanted_counts(sample)
        try:
            record = json.loads(prediction[start : end + 1])
        except (ValueError, RecursionError):
            return failed("no JSON object in the answer")
        try:
            if "passage_id" in record and not set(record["passage_id"]):
                return failed("ZeroDivisionError: an empty passage_id")
            found = list(record["little_penguin"][: len(wanted)])
        except (KeyError, TypeError) as error:
            return failed(f"{type(error).__name__}: {error}")
        return Scored(value=sum(star in wanted for star in found) / len(wanted), extracted=found)
