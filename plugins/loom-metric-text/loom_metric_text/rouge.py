"""ROUGE as the package `rouge` 1.0.1 counts it, rewritten with fast rows. Knows its sentence split and its sets.

What is peculiar: text is split into sentences at every "."; words are split at white space and kept with punctuation
and case; n-grams and common subsequences are *sets*, so a repeated word counts once; F has 1e-8 in its denominator.
The package raises on text without a sentence (empty or only "."); the metrics here say 0, as LongBench's scorer does.
It walks its table by recursion, one level a step: on sentences of together more than about a thousand words it fails
in a default Python, and LongBench then writes 0. The value here is that of the formula, and the detail warns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Literal

from loom_core.api import Metric, Sample, Scored
from loom_metric_text import lcs, segment
from loom_metric_text.f1 import NOTHING, Overlap, cited_answer, line_if_asked
from loom_metric_text.normalise import chinese, without_citations
from loom_metric_text.reference import as_text, no_reference, unchanged

RECURSION = 900
"""Steps of one walk from which the authors' recursion may not fit Python's default limit of 1,000 frames."""


def sentences(text: str) -> list[list[str]]:
    """The words of each piece between full stops. A piece of spaces is a sentence of one empty word."""
    return [piece.split() or [""] for piece in text.split(".") if piece]


def _ratio(predicted: int, wanted: int, common: int) -> Overlap:
    precision = common / predicted if predicted else 0.0
    recall = common / wanted if wanted else 0.0
    return Overlap(precision, recall, 2.0 * ((precision * recall) / (precision + recall + 1e-8)))


def _ngrams(text: list[list[str]], n: int) -> set[Hashable]:
    words = [word for sentence in text for word in sentence]
    return set(words) if n == 1 else {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def rouge_n(prediction: str, reference: str, n: int) -> Overlap:
    """ROUGE-N over sets of n-grams that run across sentences."""
    predicted, wanted = sentences(prediction), sentences(reference)
    if not predicted or not wanted:
        return NOTHING
    a, b = _ngrams(predicted, n), _ngrams(wanted, n)
    return _ratio(len(a), len(b), len(a & b))


def rouge_l(prediction: str, reference: str) -> Overlap:
    """Summary-level ROUGE-L: the words of a common subsequence of every pair of sentences, united over all pairs."""
    predicted, wanted = sentences(prediction), sentences(reference)
    if not predicted or not wanted:
        return NOTHING
    words = {word for sentence in predicted for word in sentence}
    names = {word for sentence in wanted for word in sentence}
    united: set[str] = set()
    possible = words & names
    for sentence in wanted:
        # A pair can only add words that both sides have and that no earlier pair has found.
        if not possible.difference(united).isdisjoint(sentence):
            for other in predicted:
                if not possible.difference(united).isdisjoint(other):
                    united.update(sentence[i] for i, _ in lcs.walk(sentence, other))
    return _ratio(len(words), len(names), len(united))


def deep(prediction: str, reference: str) -> bool:
    """True where the package's recursion may have failed in a default Python."""
    longest = [max(map(len, sentences(text)), default=0) for text in (prediction, reference)]
    return sum(longest) > RECURSION


Part = Literal["precision", "recall", "f1"]


@dataclass(frozen=True, slots=True)
class Rouge:
    """A part of ROUGE-1, -2 or -L (n = 0), for the best reference (or the first).

    split: how text becomes words joined by spaces; read: what is cut from the prediction beforehand.
    """

    n: int
    part: Part = "f1"
    read: Callable[[str, Sample], str] = unchanged
    split: Callable[[str], str] = str
    best: bool = True

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1; 0 where a side has no sentence."""
        if not sample.references:
            return no_reference()
        text = self.read(prediction, sample)
        spaced = self.split(text)
        values, warned = [], False
        for reference in sample.references if self.best else sample.references[:1]:
            wanted = self.split(as_text(reference))
            found = rouge_n(spaced, wanted, self.n) if self.n else rouge_l(spaced, wanted)
            values.append(getattr(found, self.part))
            warned |= not self.n and deep(spaced, wanted)
        detail = {"note": "long sentences: the authors' recursion may fail here and score 0"} if warned else {}
        return Scored(value=max(values), extracted=None if text == prediction else text, detail=detail)


def longbench_rouge() -> Metric:
    """LongBench's rouge_score: ROUGE-L F, best reference. meta: first_line_only (optional bool; true for samsum)."""
    return Rouge(0, read=line_if_asked)


def longbench_rouge_zh() -> Metric:
    """LongBench's rouge_zh_score: the same over jieba's words. meta: first_line_only (optional bool)."""
    return Rouge(0, read=line_if_asked, split=segment.spaced)


def clongeval_rouge() -> Metric:
    """CLongEval's rouge_zh_score: ROUGE-L F over jieba's words, best reference. meta: nothing."""
    return Rouge(0, split=segment.spaced)


def loogle_rouge(n: int) -> Metric:
    """LooGLE's ROUGE: recall; an empty prediction reads "None". n = 0 is ROUGE-L. meta: nothing."""
    return Rouge(n, "recall", read=lambda text, sample: text or "None", best=False)


def loogle_rouge1() -> Metric:
    """LooGLE's ROUGE-1 recall."""
    return loogle_rouge(1)


def loogle_rouge2() -> Metric:
    """LooGLE's ROUGE-2 recall."""
    return loogle_rouge(2)


def loogle_rouge_l() -> Metric:
    """LooGLE's ROUGE-L recall."""
    return loogle_rouge(0)


def _summary(prediction: str, sample: Sample) -> str:
    """L-CiteEval's summary: an announcement up to the first ":" is cut; first line; citations removed.

    An announcement is "summary" among the first 100 characters; one without ":" leaves nothing, which the authors
    (script/eval_correct.py) score 0.
    """
    text = prediction.strip()
    if "summary" in text[:100].lower():
        text = text.partition(":")[2].strip()
    return without_citations(text.split("\n")[0])


def lciteeval_rouge_l() -> Metric:
    """L-CiteEval's summaries: ROUGE-L F of the first line without citations, best reference. meta: nothing."""
    return Rouge(0, read=_summary)


def lciteeval_niah() -> Metric:
    """L-CiteEval's niah: ROUGE-1 recall of the first line without citations, best reference. meta: nothing."""
    return Rouge(1, "recall", read=lambda text, sample: cited_answer(text))


def blacklisted(text: str, stop_words: Collection[str]) -> str:
    """LV-Eval's words for dureader: jieba, joined by spaces, jieba again, normalised, stop words dropped, joined."""
    words = (chinese(word) for word in segment.words(segment.spaced(text)))
    return " ".join(word for word in words if word not in stop_words)
