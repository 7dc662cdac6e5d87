"""LV-Eval: F1 behind a gate of keywords, and ROUGE-L without stop words. Only the first reference counts.

The two stop-word lists are constants of the metric's definition (infinigence/LVEval, metrics.py, MIT licence); a
benchmark may give its own in `meta["stop_words"]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from loom_core.contracts import Metric
from loom_core.types import Sample, Scored
from loom_metric_text import segment
from loom_metric_text.f1 import overlap
from loom_metric_text.normalise import squad
from loom_metric_text.reference import as_text, failed, no_reference
from loom_metric_text.rouge import blacklisted, rouge_l

_ENGLISH = """
and to of in her was with for it from is that his he by she they or at because be on are their what as had were about
being this who but have has when which does
"""
_CHINESE = """
的 和 是 等 在 年 可以 为 与 ‰ 了 或 一种 月 c 至 日 有 进行 于 不 中 × 根据
小 由 亩 也 要 指 法 会 元 主要 以及 通过 首先 对 然后 号 以 所 后 丁 包括 无 将 用
能 形 方面 因素 位于 而 从 到 一定 用于 但 使用 让 具有 并 亿元 万元 上 类 基于 才 来 地 片
其他 个 或者 变得 时 给 你 使 条 受 已经 带 度
"""
STOP_WORDS_EN = frozenset(_ENGLISH.split())
STOP_WORDS_ZH = frozenset(_CHINESE.split())


def english_words(text: str) -> list[str]:
    """White-space words after `normalise.squad`."""
    return squad(text).split()


@dataclass(frozen=True, slots=True)
class GatedF1:
    """Token F1 with the first reference, but 0 where too few keywords are recalled.

    Recall: common tokens of prediction and keywords, stop words not counted, over all tokens of the keywords. A
    keyword text without tokens divides by zero there and is 0 here.
    meta: keywords (text or None: the record's answer_keywords), stop_words (optional list).
    """

    tokens: Callable[[str], list[str]]
    least: float
    stop_words: Collection[str]
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
            recall = self._recall(predicted, wanted, sample.meta.get("stop_words") or self.stop_words)
            if recall < self.least:
                return Scored(value=0.0, detail={"gate": recall})
        return Scored(value=overlap(predicted, self.tokens(reference)).f1)

    def _recall(self, predicted: Sequence[str], wanted: Sequence[str], stop_words: Collection[str]) -> float:
        common = Counter(predicted) & Counter(wanted)
        return sum(n for word, n in common.items() if word not in stop_words) / len(wanted)


def lveval_gated_f1() -> Metric:
    """qa_f1_score_with_gold_ans: English, recall of at least 0.2."""
    return GatedF1(english_words, 0.2, STOP_WORDS_EN, from_reference=False)


def lveval_gated_f1_zh() -> Metric:
    """qa_f1_zh_score_with_gold_ans: jieba's words, recall of at least 0.4; the reference stands in for keywords."""
    return GatedF1(segment.normal_words, 0.4, STOP_WORDS_ZH, from_reference=True)


class BlacklistRouge:
    """rouge_zh_score_blacklist (dureader): ROUGE-L F over jieba's words without stop words, first reference.

    meta: stop_words (optional list).
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        if not sample.references:
            return no_reference()
        stop_words = sample.meta.get("stop_words") or STOP_WORDS_ZH
        text, wanted = (blacklisted(t, stop_words) for t in (prediction, as_text(sample.references[0])))
        return Scored(value=rouge_l(text, wanted).f1, extracted=text)
