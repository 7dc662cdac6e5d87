"""Answers that are lists or mappings: orders (BAMBOO, Ada-LEval), numbers (LongIns), masks (LooGLE); and yes or no."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from itertools import combinations, permutations

from loom_core.api import Json, Metric, Sample, Scored
from loom_metric_text.reference import as_text, failed, hit, no_reference, whole_numbers

_INTEGER = re.compile(r"\d+")
NO_NUMBERS = Scored(value=None, detail={"why": "the references are no whole numbers"})
_BRACKETS = re.compile(r"\[(.*?)\]")


def concordance(predicted: list[int], wanted: list[int]) -> float:
    """The share of pairs of `wanted` that `predicted` has in the same order; less 1 each where it begins at 1."""
    if len(predicted) != len(wanted) or len(wanted) < 2:
        return 0.0
    if min(predicted) == 1:
        predicted = [i - 1 for i in predicted]
    place = {item: i for i, item in reversed(list(enumerate(predicted)))}
    pairs = list(combinations(wanted, 2))
    return sum(a in place and b in place and place[a] < place[b] for a, b in pairs) / len(pairs)


def _wanted(sample: Sample) -> list[int] | None:
    """The references as whole numbers; None where one is none."""
    try:
        return [int(x) for x in sample.references]
    except (TypeError, ValueError):
        return None


class BambooOrder:
    """BAMBOO's concordance index (sorting tasks) of the whole numbers in the answer. meta: nothing.

    Another number of items than the reference has is a format error: 0, and it counts.
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        if not sample.references:
            return no_reference()
        if (wanted := _wanted(sample)) is None:
            return NO_NUMBERS
        found = whole_numbers(prediction)
        error = len(found) != len(wanted)
        return Scored(value=concordance(found, wanted), extracted=found, detail={"format_error": error})


def _bare(text: str) -> str:
    return text.strip().rstrip(".").strip().lower()


class BambooExact:
    """BAMBOO's altqa and prediction tasks: equal after stripping, a final "." and case put aside. meta: nothing."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1."""
        if not sample.references:
            return no_reference()
        return hit(_bare(prediction) == _bare(as_text(sample.references[0])), _bare(prediction))


class BambooYes:
    """BAMBOO's hallucination tasks, one answer: "yes" among the first three characters says true. meta: nothing.

    The value is 1 where that equals the reference; `extracted` is what was read, for the precision, recall and F1 of
    the positive class that the authors report over the task.
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1."""
        if not sample.references:
            return no_reference()
        said = "yes" in prediction[:3].lower()
        return hit(said == _truth(sample.references[0]), said)


def _truth(reference: Json) -> bool:
    return reference if isinstance(reference, bool) else str(reference).strip().lower() in ("true", "yes", "1")


def ordered(prediction: str, n: int) -> list[Json] | None:
    """A JSON list, else the one permutation of 1 to n whose digits stand in the text in that order; None otherwise."""
    try:
        found = json.loads(prediction)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list):
        return found
    digits = _INTEGER.findall(prediction) if n > 9 else [c for c in prediction if c in "123456789"]
    fitting = [p for p in permutations(range(1, n + 1)) if _within([str(i) for i in p], digits)] if n < 8 else []
    return list(fitting[0]) if len(fitting) == 1 else None


def _within(wanted: list[str], text: list[str]) -> bool:
    rest = iter(text)
    return all(item in rest for item in wanted)


class AdaTextSort:
    """Ada-LEval's textsort: the order read equals the reference item by item, as far as the shorter one goes.

    So a right beginning passes, and the empty list passes too, as upstream. meta: nothing.
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1."""
        if not sample.references:
            return no_reference()
        found = ordered(prediction, len(sample.references))
        if found is None:
            return hit(False)
        return hit(all(a == b for a, b in zip(found, sample.references, strict=False)), found)


class LongInsF1:
    """LongIns: F1 of the set of whole numbers inside [...] against the wrong questions' numbers. meta: nothing.

    0 where either set is empty, also where both are.
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        found = {n for inside in _BRACKETS.findall(prediction) for n in whole_numbers(inside)}
        if (numbers := _wanted(sample)) is None:
            return NO_NUMBERS
        wanted = set(numbers)
        common = len(found & wanted)
        if not common:
            return Scored(value=0.0, extracted=sorted(found))
        precision, recall = common / len(found), common / len(wanted)
        return Scored(value=2 * precision * recall / (precision + recall), extracted=sorted(found))


@dataclass(frozen=True, slots=True)
class LoogleCloze:
    """LooGLE's cloze: the share of masks filled right; the authors add up hits and masks over the task.

    References: one mapping of mask to name. Exact: the same text; partial: a word in common. The answer is read as a
    Python literal (upstream runs it as code). `extracted` is [hits, masks]. meta: nothing.
    """

    partial: bool

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        if not sample.references or not isinstance(sample.references[0], dict):
            return no_reference()
        wanted: dict[str, Json] = sample.references[0]
        try:
            found = ast.literal_eval(prediction.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            found = None
        if not isinstance(found, dict):
            scored = failed("the answer is no mapping")
            return Scored(value=0.0, extracted=[0, len(wanted)], detail=scored.detail)
        hits = sum(mask in found and self._same(as_text(found[mask]), as_text(name)) for mask, name in wanted.items())
        return Scored(value=hits / len(wanted) if wanted else 0.0, extracted=[hits, len(wanted)])

    def _same(self, found: str, wanted: str) -> bool:
        return not set(found.split()).isdisjoint(wanted.split()) if self.partial else found == wanted


def loogle_cloze_exact() -> Metric:
    """LooGLE's exact match of masks."""
    return LoogleCloze(partial=False)


def loogle_cloze_partial() -> Metric:
    """LooGLE's partial match of masks."""
    return LoogleCloze(partial=True)
