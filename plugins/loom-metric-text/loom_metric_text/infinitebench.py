"""InfiniteBench's own matches: keys, numbers, code, characters, choices. Its F1 and ROUGE are in `f1`, `rouge_score`.

References are the record's answer: a text or number, or a list of them; which of a list count is said per metric.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loom_core.api import Json, Metric, Sample, Scored
from loom_metric_text.reference import as_text, failed, hit, no_reference, whole_numbers

_DIGITS = re.compile(r"[0-9]+")
_NUMBER = re.compile(r"\d+\.\d+|\d+")
_KEY_MARKS = "\n:\"'.,?!{}"
_RUN_MARKS = "\n.`'\":"


def _spaced(text: str, marks: Sequence[str]) -> str:
    for mark in marks:
        text = text.replace(mark, " ")
    return text


def first_digits(prediction: str) -> str:
    """The first run of ASCII digits; empty without one."""
    found = _DIGITS.search(prediction)
    return found[0] if found else ""


def infinitebench_kv() -> Metric:
    """kv_retrieval: the reference is one of the words left when punctuation is spaced out."""
    return Whole(lambda text, wanted: hit(as_text(wanted) in _spaced(text, _KEY_MARKS).split()))


def infinitebench_first_number() -> Metric:
    """passkey and number_string: the first run of digits is the reference."""
    return Whole(lambda text, wanted: hit(as_text(wanted) == first_digits(text), first_digits(text)))


@dataclass(frozen=True, slots=True)
class Whole:
    """A comparison with the first reference alone. meta: nothing."""

    compare: Callable[[str, Json], Scored]

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1."""
        if not sample.references:
            return no_reference()
        return self.compare(prediction, sample.references[0])


def code_run(prediction: str, wanted: Json) -> Scored:
    """1 where the last word, punctuation spaced out, is the reference as a whole number."""
    words = _spaced(prediction.strip(), _RUN_MARKS).split()
    try:
        found = int(words[-1]) if words else None
    except ValueError:
        return hit(False, words[-1])
    return hit(found is not None and str(found) == as_text(wanted), found)


def infinitebench_code_run() -> Metric:
    """code_run: the last word is the value."""
    return Whole(code_run)


def math_find(prediction: str, wanted: Json) -> Scored:
    """1 where the first number is the reference. For a whole reference "88.0" raises there and is 0 here."""
    found = _NUMBER.search(prediction)
    if found is None:
        return hit(False)
    if isinstance(wanted, float):
        return hit(float(found[0]) == wanted, found[0])
    if "." in found[0]:
        return failed(f"ValueError: {found[0]!r} is no whole number")
    return hit(whole_numbers(found[0]) == whole_numbers(as_text(wanted)), found[0])


def infinitebench_math_find() -> Metric:
    """math_find: the first number."""
    return Whole(math_find)


class MathCalc:
    """math_calc: the length of the right beginning over the length of the reference (a list of whole numbers).

    Numbers are runs of ASCII digits. meta: model_name (optional; for "gpt4" the authors drop the first number, which
    their prompt makes it repeat).
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        if not sample.references:
            return no_reference()
        first = sample.references[0]
        wanted = list(first) if isinstance(first, (list, tuple)) else list(sample.references)
        found = [n for text in _DIGITS.findall(prediction) for n in whole_numbers(text)]
        if sample.meta.get("model_name") == "gpt4":
            found = found[1:]
        n = 0
        while n < min(len(found), len(wanted)) and found[n] == wanted[n]:
            n += 1
        return Scored(value=n / len(wanted) if wanted else 0.0, extracted=n)


_DEBUG_MARKS = ("\n", "`", "'", '"', "-", "*", "Option", "option")
_DEBUG_PREFIXES = ("answer is:", "is:", "answer:", "correct option is:")


class CodeDebug:
    """code_debug: the answer begins with "X." or "X:", or a phrase such as "answer is:" is followed by X or its text.

    References: the function's name, then its letter. One character after the phrase is passed over, and only the
    first phrase that occurs decides. meta: nothing.
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1."""
        if len(sample.references) < 2:
            return no_reference()
        name, letter = map(as_text, sample.references[:2])
        if prediction[:2] in (f"{letter}.", f"{letter}:"):
            return hit(True, letter)
        text = re.sub(r" +", " ", _spaced(prediction.strip(), _DEBUG_MARKS))
        for prefix in _DEBUG_PREFIXES:
            if prefix in text:
                after = text.partition(prefix)[2][1:]
                return hit(after.startswith((letter, name)), after[:40])
        return hit(False)


class Dialogue:
    """longdialogue_qa_eng: the first reference is one of the words, in upper case, punctuation spaced out.

    A reference of two words can never match. meta: nothing.
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1."""
        if not sample.references:
            return no_reference()
        words = _spaced(prediction.strip(), _KEY_MARKS).upper().split()
        return hit(as_text(sample.references[0]) in words)


_CHOICE_MARKS = "\n\"'.,?!{}"
_CHOICE_PREFIXES = ("answer is:", "answer:", "answer is", "option is")


class Choice:
    """longbook_choice_eng: the first letter, else the whole answer, else what follows "answer is", else a lone letter.

    References: the option's text and its letter, either matches. An answer that begins with A, B, C or D is judged by
    that letter alone, so "Because …" says B. meta: nothing.
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1."""
        wanted = [as_text(reference) for reference in sample.references]
        if not wanted:
            return no_reference()
        text = prediction.strip()
        if not text:
            return hit(False)
        if text[0] in "ABCD":
            return hit(text[0] in wanted, text[0])
        if text in wanted:
            return hit(True, text)
        text = re.sub(r" +", " ", _spaced(text, _CHOICE_MARKS))
        for prefix in _CHOICE_PREFIXES:
            if prefix in text:
                after = text.partition(prefix)[2][1:]
                return hit(after.startswith(tuple(wanted)), after[:40])
        letter = next((word for word in text.split() if word in "ABCD"), None)
        return hit(letter in wanted, letter)
