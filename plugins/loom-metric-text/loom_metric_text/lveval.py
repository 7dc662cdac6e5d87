"""LV-Eval: F1 behind a gate of keywords, and ROUGE-L without stop words. Only the first reference counts.

The stop-word lists belong to the authors (infinigence/LVEval, metrics.py: 38 English words, 85 Chinese) and are not
shipped: the benchmark reads them from its pinned file into `meta["stop_words"]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from loom_core.api import Metric, Sample, Scored
from loom_metric_text import segment
from loom_metric_text.f1 import overlap
from loom_metric_text.normalise import squad
from loom_metric_text.reference import as_text, failed, needed, no_reference
from loom_metric_text.rouge import blacklisted, rouge_l


def english_words(text: str) -> list[str]:
    """White-space words after `normalise.squad`."""
    return squad(text).split()


@dataclass(frozen=True, slots=True)
class GatedF1:
    """Token F1 with the first reference, but 0 where too few keywords are recalled.

    Recall: common tokens of prediction and keywords, stop words not counted, over all tokens of the keywords. A
    keyword text without tokens divides by zero there and is 0 here.
    meta: keywords (text or None: the record's answer_keywords), stop_words (the authors' list for the language).
    """

    tokens: Callable[[str], list[str]]
    least: float
    from_reference: bool

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1. from_reference: without keywords the reference itself is taken as such."""
        if not sample.references:
            return no_reference()
        reference = as_text(sample.references[0])
        predicted = self.tokens(prediction)
        keywords = sample.meta.get("keywords") or (reference if self.from_reference else "")
        if keywords:
            wanted = self.tokens(as_text(keywords))
            if not wanted:
                return failed("ZeroDivisionError: the keywords have no tokens")
            recall = self._recall(predicted, wanted, needed(sample, "stop_words"))
            if recall < self.least:
                return Scored(value=0.0, detail={"gate": recall})
        return Scored(value=overlap(predicted, self.tokens(reference)).f1)

    def _recall(self, predicted: Sequence[str], wanted: Sequence[str], stop_words: Collection[str]) -> float:
        common = Counter(predicted) & Counter(wanted)
        return sum(n for word, n in common.items() if word not in stop_words) / len(wanted)


def lveval_gated_f1() -> Metric:
    """qa_f1_score_with_gold_ans: English, recall of at least 0.2."""
    return GatedF1(english_words, 0.2, from_reference=False)


def lveval_gated_f1_zh() -> Metric:
    """qa_f1_zh_score_with_gold_ans: jieba's words, recall of at least 0.4; the reference stands in for keywords."""
    return GatedF1(segment.normal_words, 0.4, from_reference=True)


class BlacklistRouge:
    """rouge_zh_score_blacklist (dureader): ROUGE-L F over jieba's words without stop words, first reference.

    meta: stop_words (the authors' Chinese list).
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        if not sample.references:
            return no_reference()
        stop_words = needed(sample, "stop_words")
        text, wanted = (blacklisted(t, stop_words) for t in (prediction, as_text(sample.references[0])))
        return Scored(value=rouge_l(text, wanted).f1, extracted=text)
