"""Letters of multiple-choice answers: how each suite reads them (LongBench v2, BAMBOO, Ada-LEval's numbers)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from loom_core.api import Metric, Sample, Scored
from loom_metric_text.reference import as_text, failed, hit, needed, no_reference

_LETTERS = (re.compile(r"The correct answer is \(([A-D])\)"), re.compile(r"The correct answer is ([A-D])"))


def stated_letter(prediction: str) -> str | None:
    """The letter after "The correct answer is", in parentheses or else without, "*" ignored; None without one."""
    text = prediction.replace("*", "")
    for pattern in _LETTERS:
        if found := pattern.search(text):
            return found[1]
    return None


@dataclass(frozen=True, slots=True)
class LongBenchV2:
    """LongBench v2: 1 where the stated letter is the reference. missing: the value where no letter is stated."""

    missing: float = 0.0

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1. meta: nothing; the reference is a letter, or an answer in the authors' form."""
        if not sample.references:
            return no_reference()
        letter = stated_letter(prediction)
        if letter is None:
            return Scored(value=self.missing, detail={"note": "no answer in the authors' form"})
        wanted = as_text(sample.references[0])
        return hit(letter == (stated_letter(wanted) or wanted), letter)


def longbench_v2_choice() -> Metric:
    """LongBench v2's accuracy."""
    return LongBenchV2()


def longbench_v2_choice_compensated() -> Metric:
    """LongBench v2's compensated accuracy: an answer without a letter counts as a guess, 0.25."""
    return LongBenchV2(0.25)


class BambooChoice:
    """BAMBOO's qa_accuracy: the first character is the reference. An empty answer, which raises there, is 0 here."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1. meta: nothing."""
        if not sample.references:
            return no_reference()
        if not prediction:
            return failed("IndexError: string index out of range")
        return hit(prediction[0] == as_text(sample.references[0]), prediction[0])


class AdaStackSelect:
    """Ada-LEval's stackselect: the candidate with the highest number whose name "A<i>" occurs, else whose digits occur.

    So "A12" names 12, though it holds "A1" too, and "10 people chose A1" names 1. meta: num_choice (whole number).
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1."""
        if not sample.references:
            return no_reference()
        numbers = range(int(needed(sample, "num_choice")), 0, -1)
        found = next((i for i in numbers if f"A{i}" in prediction), None)
        if found is None:
            found = next((i for i in numbers if str(i) in prediction), None)
        name = None if found is None else f"A{found}"
        return hit(name == as_text(sample.references[0]), name)
