"""Scores by what occurs in the answer: class names, numbers, wanted strings. Knows substrings and digits only.

Suites: LongBench (classes, paragraph numbers, counts), RULER and SCBench (wanted strings), LIBRA (wanted and unwanted
strings), NoLiMa (a name, anywhere or on the last line).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loom_core.api import Metric, Sample, Scored
from loom_metric_text.f1 import line_if_asked
from loom_metric_text.normalise import squad
from loom_metric_text.reference import Compared, as_text, needed, no_reference, unchanged

_NUMBER = re.compile(r"\d+")
_CONTROL = re.compile(r"[\x00-\x1f]")


def classes_named(prediction: str, reference: str, classes: Sequence[str]) -> list[str]:
    """The class names that occur in the prediction, less those that are a proper part of the reference.

    As LongBench does it: names are removed from the list that is being gone through, so the name after a removed one
    is not looked at and stays even where it is a part of the reference too.
    """
    named = [name for name in classes if name in prediction]
    i = 0
    while i < len(named):
        if named[i] in reference and named[i] != reference:
            # The first equal name goes, as a list's `remove` would do.
            named.remove(named[i])
        i += 1
    return named


class LongBenchClassification:
    """LongBench's classification_score: 1/n where the reference is among the n classes named, else 0; best reference.

    meta: all_classes (list of names), first_line_only (optional bool; true for trec and lsht).
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        if not sample.references:
            return no_reference()
        classes = needed(sample, "all_classes")
        text = line_if_asked(prediction, sample)
        best, named = 0.0, list[str]()
        for reference in map(as_text, sample.references):
            named = classes_named(text, reference, classes)
            best = max(best, 1.0 / len(named) if reference in named else 0.0)
        return Scored(value=best, extracted=named)


def share_of_numbers(prediction: str, wanted: str) -> float:
    """The share of all numbers in the prediction that equal `wanted` digit by digit; 0 without numbers."""
    numbers = _NUMBER.findall(prediction)
    return numbers.count(wanted) / len(numbers) if numbers else 0.0


def _paragraph(pattern: str) -> Callable[[str, str], float]:
    def compare(prediction: str, reference: str) -> float:
        found = re.search(pattern, reference)
        return share_of_numbers(prediction, found[1]) if found else 0.0

    return compare


def longbench_retrieval() -> Metric:
    """LongBench's retrieval_score: share of numbers equal to the reference's "Paragraph N". meta: nothing."""
    return Compared(_paragraph(r"Paragraph (\d+)"), line_if_asked)


def longbench_retrieval_zh() -> Metric:
    """LongBench's retrieval_zh_score: share of numbers equal to the reference's "段落N". meta: nothing."""
    return Compared(_paragraph(r"段落(\d+)"), line_if_asked)


def longbench_count() -> Metric:
    """LongBench's count_score: share of numbers equal to the reference. meta: nothing."""
    return Compared(share_of_numbers, line_if_asked)


def ruler_text(prediction: str) -> str:
    """RULER's post-processing: stripped, control characters \\x00 to \\x1f become line feeds, stripped again."""
    return _CONTROL.sub("\n", prediction.strip()).strip()


@dataclass(frozen=True, slots=True)
class Contained:
    """The share of references that the prediction contains in any case (`every`), or 1 if it contains one of them.

    clean: what is done to the prediction first. meta: nothing.
    """

    every: bool
    clean: Callable[[str], str] = ruler_text

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        if not sample.references:
            return no_reference()
        text = self.clean(prediction).lower()
        found = [as_text(r) for r in sample.references if as_text(r).lower() in text]
        value = len(found) / len(sample.references) if self.every else float(bool(found))
        return Scored(value=value, extracted=found)


def ruler_match_all() -> Metric:
    """RULER's string_match_all: every task but qa."""
    return Contained(every=True)


def ruler_match_any() -> Metric:
    """RULER's string_match_part: qa_1 and qa_2."""
    return Contained(every=False)


def scbench_match_all() -> Metric:
    """SCBench's string_match_all (vt): without RULER's post-processing."""
    return Contained(every=True, clean=str)


@dataclass(frozen=True, slots=True)
class Unless:
    """LIBRA's rule for unwanted answers, around another metric.

    The wanted score stays without unwanted strings; it is 0 where all of them occur, else less their share, at least 0.
    """

    wanted: Metric

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1. Reads `sample.negatives`; meta: nothing."""
        scored = self.wanted.score(prediction, sample)
        if not sample.negatives or scored.value is None:
            return scored
        found = [text for text in sample.negatives if text in prediction]
        share = len(found) / len(sample.negatives)
        value = 0.0 if share == 1 else max(0.0, scored.value - share)
        return Scored(value=value, extracted=scored.extracted, detail={**scored.detail, "negatives": found})


def substring(prediction: str, reference: str) -> float:
    """1 if the prediction contains the reference, case and all."""
    return float(reference in prediction)


def libra_match() -> Metric:
    """LIBRA's em: a case-sensitive substring, best reference, less unwanted answers (`sample.negatives`)."""
    return Unless(Compared(substring))


def libra_count() -> Metric:
    """LIBRA's count_score (ru_sci_passage_count): share of numbers equal to the reference, less unwanted answers."""
    return Unless(Compared(share_of_numbers))


def _last_line(prediction: str, sample: Sample) -> str:
    return prediction.strip().split("\n")[-1]


def _stripped(prediction: str, sample: Sample) -> str:
    return prediction.strip()


def _equal(prediction: str, reference: str) -> float:
    return float(prediction == reference)


def nolima_contains() -> Metric:
    """NoLiMa's contains (its default): any reference occurs, case-sensitive. meta: nothing."""
    return Compared(substring, unchanged)


def nolima_exact() -> Metric:
    """NoLiMa's EM: the stripped answer is a reference. meta: nothing."""
    return Compared(_equal, _stripped)


def nolima_last_line_contains() -> Metric:
    """NoLiMa's lastline_contains: the last line of the stripped answer contains a reference. meta: nothing."""
    return Compared(substring, _last_line)


def nolima_last_line_exact() -> Metric:
    """NoLiMa's lastline_EM: the last line of the stripped answer is a reference. meta: nothing."""
    return Compared(_equal, _last_line)


def helmet_exact_match() -> Metric:
    """HELMET's EM: equal after `normalise.squad`, best reference. meta: nothing."""
    return Compared(lambda prediction, reference: float(squad(prediction) == squad(reference)))


def helmet_substring_match() -> Metric:
    """HELMET's substring EM: the reference occurs, both after `normalise.squad`; best reference. meta: nothing."""
    return Compared(lambda prediction, reference: float(squad(reference) in squad(prediction)))
