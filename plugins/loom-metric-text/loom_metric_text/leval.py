"""L-Eval's exam: cleaning of each kind of answer, then its exact match. Values are 0 to 1 (0 to 100 there).

The exact match keeps case. Equal after `normalise.squad_with_case` is 1; so is a prediction that holds all words of
the reference (at least one), which lets "f g h 5" match "5" and a whole sentence match a topic. A multiple choice that
names some of several right letters and no wrong one gets 0.25.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from loom_core.contracts import Metric
from loom_core.types import Sample, Scored
from loom_metric_text.normalise import squad_with_case
from loom_metric_text.reference import as_text, failed, no_reference

LETTERS = "ABCD"
PARTIAL = 0.25
ERROR = "<error>"
"""What a judgement reads as that is neither true nor false."""


def exact_match(prediction: str, reference: str) -> float:
    """1 where the normalised texts are equal or the prediction holds every word of the reference, else 0."""
    a, b = squad_with_case(prediction), squad_with_case(reference)
    wanted = b.split()
    return float(a == b or (bool(wanted) and not Counter(wanted) - Counter(a.split())))


def choice_match(prediction: str, reference: str) -> float:
    """`exact_match`; 0.25 for a part of the right letters without a wrong one."""
    if whole := exact_match(prediction, reference):
        return whole
    part = bool(prediction) and set(prediction) < set(reference)
    return PARTIAL if part and set(reference) <= set(LETTERS) else 0.0


def right_letters(reference: str) -> str:
    """The letters A to D of the first word, sorted, each once: "(A) He left" is "A"."""
    first = (reference.split() or [""])[0]
    return "".join(sorted({c for c in first if c in LETTERS}))


def chosen_letters(prediction: str) -> str:
    """The letters an answer names, sorted, each once; "None" for an empty answer, "A" where no letter is found.

    A run of letters at the beginning counts ("AB", "(A) He left", "Answer: (A)", whose capital A is such a run); else
    letters that stand alone before a space, a full stop or the end, so that a letter before a comma is passed over;
    else the first run of letters anywhere, also inside a word.
    """
    text = prediction.strip()
    if not text:
        return "None"
    run = re.match(r"[ABCD(), ]*", text)
    found = [c for c in (run[0] if run else "") if c in LETTERS]
    found = found or re.findall(r"(?<![A-Za-z])[ABCD](?=[ .)\n]|$)", text)
    if not found and (first := re.search(r"[ABCD]+", text)):
        found = list(first[0])
    return "".join(sorted(set(found))) or "A"


def number(prediction: str) -> str:
    """The digits, up to a decimal point, of the word after "The answer is", else of the first paragraph's last number.

    The last number is the last word (between spaces) with a digit, all digits of it: "9*2=18" reads 9218.
    """
    stated = re.search(r"The answer is (\S+)", prediction)
    if stated:
        word = stated[1]
    else:
        words = prediction.split("\n\n")[0].split(" ")
        word = next((w for w in reversed(words) if any(c.isdigit() for c in w)), "")
    return "".join(c for c in word.partition(".")[0] if c.isdigit())


_FILLER = ("will be", "of the code", "is", "would be", "the value of", "the result of", "printed")
"""Deleted in this order wherever the letters stand, also inside a word. Gold rows show "is" and "of the code"; the
others, and that words are not respected ("list" reads "lt"), are known of the authors' script but shown by no row."""
_MARK = "the final output"


def _joined(text: str) -> str:
    for mark in ("\\", ","):
        text = text.replace(mark, "")
    return re.sub(r"\]\s+\[", "][", text)


def code_output(prediction: str, n: int) -> str:
    """The words that hold a program's output, n + 3 of them where n is the number of words of the reference.

    Filler, commas and backslashes are dropped; then the words after the last "the final output", else the last words.
    """
    text = _joined(prediction)
    for filler in _FILLER:
        text = text.replace(filler, "")
    if _MARK in text:
        return " ".join(re.split(r"\s+", text.split(_MARK)[-1])[: n + 3])
    # White space at the end makes an empty last word, which counts.
    return " ".join(re.split(r"\s+", text)[-(n + 3) :])


def code_reference(reference: str) -> str:
    """The reference with white space joined."""
    return " ".join(_joined(reference).split())


def judgements(text: str) -> tuple[str, str] | None:
    """Loyalty and fact of "true [fact: false]", in lower case; None without a "[fact:".

    Of several "[fact:" the first counts. The last character after it is taken for its bracket and dropped.
    """
    parts = text.lower().split("[fact:")
    if len(parts) < 2:
        return None
    told = (parts[0], parts[1].strip()[:-1])
    loyalty, fact = (next((word for word in ("true", "false") if word in part), ERROR) for part in told)
    return loyalty, fact


@dataclass(frozen=True, slots=True)
class Exam:
    """Clean the answer and each reference, match, keep the best. meta: nothing."""

    answer: Callable[[str, str], str]
    reference: Callable[[str], str]
    match: Callable[[str, str], float] = exact_match

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        if not sample.references:
            return no_reference()
        best, extracted = -1.0, ""
        for wanted in map(self.reference, map(as_text, sample.references)):
            found = self.answer(prediction, wanted)
            value = self.match(found, wanted)
            if value > best:
                best, extracted = value, found
        return Scored(value=best, extracted=extracted)


def leval_choice() -> Metric:
    """Multiple choice: quality, tpo, and coursera with several right letters."""
    return Exam(lambda text, wanted: chosen_letters(text), right_letters, choice_match)


def leval_math() -> Metric:
    """gsm100."""
    return Exam(lambda text, wanted: number(text), number)


def leval_code() -> Metric:
    """codeU."""
    return Exam(lambda text, wanted: code_output(text, len(wanted.split())), code_reference)


def leval_topic() -> Metric:
    """topic_retrieval_longchat (the first, second and third topic are reported apart)."""
    return Exam(lambda text, wanted: text, str)


@dataclass(frozen=True, slots=True)
class Judgement:
    """sci_fi: one of the two judgements of "true [fact: false]" equals the reference's. meta: nothing.

    part: 0 for loyalty (what the document says), 1 for fact (what is so in the world). An answer without "[fact:"
    raises there and is 0 here.
    """

    part: int

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1."""
        if not sample.references:
            return no_reference()
        found = judgements(prediction)
        if found is None:
            return failed('no "[fact:" to split the answer at')
        wanted = [judgements(as_text(reference)) for reference in sample.references]
        right = any(w is not None and w[self.part] == found[self.part] for w in wanted)
        return Scored(value=float(right), extracted=found[self.part])


def leval_loyalty() -> Metric:
    """sci_fi's first judgement."""
    return Judgement(0)


def leval_fact() -> Metric:
    """sci_fi's second judgement."""
    return Judgement(1)
