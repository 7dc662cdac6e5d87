"""L-Eval's exam: cleaning of each kind of answer, then the authors' exact match. Values are 0 to 1 (0 to 100 there).

Source: OpenLMLab/LEval@cd34b05, Evaluation/auto_eval.py (process_*) and Evaluation/em.py (exact_match_score), as facts.
Where their code raises (a choice without a word in its reference, a judgement without "[fact:") the value is 0 and the
detail names what is raised. Knows strings only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from loom_core.api import Metric, Sample, Scored
from loom_metric_text.normalise import squad_with_case
from loom_metric_text.reference import as_text, failed, no_reference

LETTERS = "ABCD"
PARTIAL = 0.25
ERROR = "<error>"
"""What a judgement reads as that is neither true nor false."""
NO_ANSWER, GUESS = "None", "A"
"""What an empty choice reads as, and one that names no letter."""


def exact_match(prediction: str, reference: str) -> float:
    """How far a cleaned answer matches a cleaned reference.

    A reference of letters A to D alone (after `normalise.squad_with_case`; or with nothing left) is matched
    as a whole, and 0.25 is given where each character of the answer is one of its characters. Any other is matched as a
    number where both are numbers to Python (so that "nan" matches nothing), else as a part of the answer, in any case
    and without spaces.
    """
    wanted = squad_with_case(reference)
    if set(wanted) <= set(LETTERS):
        found = squad_with_case(prediction)
        return 1.0 if found == wanted else PARTIAL if set(found) <= set(wanted) else 0.0
    try:
        return float(float(prediction) == float(reference))
    except ValueError:
        return float(reference.lower().replace(" ", "") in prediction.lower().replace(" ", ""))


def right_letters(reference: str) -> str:
    """The letters A to D of the first word in their order: "(A) He left" is "A". Raises IndexError without a word."""
    return "".join(c for c in reference.split()[0] if c in LETTERS) or GUESS


def chosen_letter(prediction: str) -> str:
    """quality and tpo: the first A to D anywhere, also inside a word; "AB" and its like stand as they are."""
    if not prediction.strip():
        return NO_ANSWER
    if prediction in LETTERS:
        return prediction
    return next((c for c in prediction if c in LETTERS), GUESS)


def chosen_letters(prediction: str) -> str:
    """coursera, which may have several right letters; sorted, each once.

    Two letters or more at the very beginning are the answer. Else the one there may be, and every capital before a
    space, a full stop or ")" in the rest, up to the word "Question": so "A, B, C" reads "A". Without any the first run
    of letters anywhere, as it is.
    """
    if not prediction.strip():
        return NO_ANSWER
    if prediction in LETTERS:
        return prediction
    rest = prediction.lstrip(LETTERS)
    leading = prediction[: len(prediction) - len(rest)]
    if len(leading) < 2:
        rest = rest.split("Question")[0]
        leading += "".join(re.findall(r"[A-D](?=[\s.)])", rest))
    if not leading and (run := re.search(f"[{LETTERS}]+", rest)):
        return run[0]
    return "".join(sorted(set(leading))) or GUESS


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


_TIDIED = ((",", ""), ("'", ""), ("\\", ""), (".0", ""), ("] [", "]["), ("[ [", "[["), ("] ]", "]]"))
_FILLER = ("will be", "of the code", "is", "would be", "the value of", "the result of", "printed")
"""Deleted in this order wherever the letters stand, also inside a word: "list" reads "lt"."""
_MARK = "the final output"


def tidied_output(text: str) -> str:
    """A program's output as both sides are compared: runs of white space are a space, then `_TIDIED` in its order."""
    text = re.sub(r"\s+", " ", text)
    for old, new in _TIDIED:
        text = text.replace(old, new)
    return text


def code_output(prediction: str, n: int) -> str:
    """The words that hold a program's output, n + 3 of them, where n is the number of words of the reference as given.

    They follow the last "the final output", else they are the last ones. White space at either end makes an empty word,
    which counts.
    """
    text = tidied_output(prediction)
    for filler in _FILLER:
        text = text.replace(filler, "")
    marked = _MARK in text
    words = re.split(r"\s+", text.split(_MARK)[-1])
    return " ".join(words[: n + 3] if marked else words[-(n + 3) :])


def judgements(text: str) -> tuple[str, str]:
    """Loyalty and fact of "True [fact: False]", in lower case and stripped. Raises IndexError without a "[fact:".

    Of several "[fact:" the first counts. The last character after it is taken for its bracket and dropped.
    """
    parts = text.lower().split("[fact:")
    return parts[0].strip(), parts[1][:-1].strip()


def verdict(text: str) -> str:
    """What the first word says that holds "true" or "false" ("true" where it holds both); `ERROR` without one."""
    found = (name for word in text.split() for name in ("true", "false") if name in word)
    return next(found, ERROR)


@dataclass(frozen=True, slots=True)
class Exam:
    """Clean the answer and each reference, match, keep the best. meta: nothing."""

    answer: Callable[[str, str], str]
    reference: Callable[[str], str]

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1; 0 where the authors' code raises, with what it raises."""
        if not sample.references:
            return no_reference()
        best, extracted = -1.0, ""
        for raw in map(as_text, sample.references):
            found = self.answer(prediction, raw)
            try:
                value = exact_match(found, self.reference(raw))
            except IndexError:
                return failed("IndexError: the reference has no word")
            if value > best:
                best, extracted = value, found
        return Scored(value=best, extracted=extracted)


def leval_choice() -> Metric:
    """Multiple choice with one right letter: quality and tpo."""
    return Exam(lambda text, wanted: chosen_letter(text), right_letters)


def leval_choices() -> Metric:
    """Multiple choice with one or several right letters: coursera."""
    return Exam(lambda text, wanted: chosen_letters(text), right_letters)


def leval_math() -> Metric:
    """gsm100."""
    return Exam(lambda text, wanted: number(text), number)


def leval_code() -> Metric:
    """codeU."""
    return Exam(lambda text, wanted: code_output(text, len(wanted.split())), tidied_output)


def leval_topic() -> Metric:
    """topic_retrieval_longchat (the first, second and third topic are reported apart)."""
    return Exam(lambda text, wanted: text, str)


@dataclass(frozen=True, slots=True)
class Judgement:
    """sci_fi: one of the two judgements of "true [fact: false]" matches the reference's. meta: nothing.

    part: 0 for loyalty (what the document says), 1 for fact (what is so in the world). Without "[fact:" in the answer
    or in the reference the authors' code raises: 0 here.
    """

    part: int

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1."""
        if not sample.references:
            return no_reference()
        try:
            wanted = [judgements(as_text(reference))[self.part] for reference in sample.references]
            found = verdict(judgements(prediction)[self.part])
        except IndexError:
            return failed('IndexError: no "[fact:" to split at')
        return Scored(value=max(exact_match(found, one) for one in wanted), extracted=found)


def leval_loyalty() -> Metric:
    """sci_fi's first judgement."""
    return Judgement(0)


def leval_fact() -> Metric:
    """sci_fi's second judgement."""
    return Judgement(1)
