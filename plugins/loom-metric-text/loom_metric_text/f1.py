"""Token F1 in its variants: which tokens, which normaliser, which guard. Sources: dossiers of the suites' scorers.

All share one formula: with c common tokens (as multisets), p = c / predicted, r = c / referenced, F1 = 2pr / (p + r);
0 without common tokens, so an empty prediction or reference gives 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import Metric, Sample, Scored
from loom_metric_text import segment
from loom_metric_text.normalise import chinese, first_line, russian, squad, without_citations
from loom_metric_text.reference import Compared, as_text, no_reference


@dataclass(frozen=True, slots=True)
class Overlap:
    """Precision, recall and F1 of two bags of tokens."""

    precision: float
    recall: float
    f1: float


NOTHING = Overlap(0.0, 0.0, 0.0)


def overlap(predicted: Sequence[str], wanted: Sequence[str]) -> Overlap:
    """The overlap of two token lists as multisets; all 0 when nothing is common."""
    common = (Counter(predicted) & Counter(wanted)).total()
    if not common:
        return NOTHING
    precision, recall = common / len(predicted), common / len(wanted)
    return Overlap(precision, recall, 2 * precision * recall / (precision + recall))


def squad_f1(prediction: str, reference: str) -> float:
    """F1 over white-space words after `normalise.squad`."""
    return overlap(squad(prediction).split(), squad(reference).split()).f1


def jieba_f1(prediction: str, reference: str) -> float:
    """F1 over jieba's words, each normalised by `normalise.chinese`."""
    return overlap(segment.normal_words(prediction), segment.normal_words(reference)).f1


def character_f1(prediction: str, reference: str) -> float:
    """F1 over the characters left by `normalise.chinese`."""
    return overlap(chinese(prediction), chinese(reference)).f1


def russian_f1(prediction: str, reference: str) -> float:
    """F1 over white-space words after `normalise.russian`."""
    return overlap(russian(prediction).split(), russian(reference).split()).f1


def guarded_f1(prediction: str, reference: str) -> float:
    """`squad_f1`, but 0 where either side is exactly yes, no or noanswer and the other is not the same (HELMET)."""
    a, b = squad(prediction), squad(reference)
    if a != b and {a, b} & {"yes", "no", "noanswer"}:
        return 0.0
    return overlap(a.split(), b.split()).f1


def line_if_asked(prediction: str, sample: Sample) -> str:
    """The first line where `meta["first_line_only"]` is true, else everything (LongBench's few-shot tasks)."""
    return first_line(prediction) if sample.meta.get("first_line_only") else prediction


def _clongeval(prediction: str, sample: Sample) -> str:
    """CLongEval's cut: the first line, up to the next question."""
    return first_line(prediction).split("问题：")[0]


def cited_answer(prediction: str) -> str:
    """L-CiteEval's answer: stripped, first line only, citations removed."""
    return without_citations(prediction.strip().split("\n")[0])


def longbench_qa_f1() -> Metric:
    """LongBench's qa_f1_score, best reference. meta: first_line_only (optional bool; true for triviaqa)."""
    return Compared(squad_f1, line_if_asked)


def longbench_qa_f1_zh() -> Metric:
    """LongBench's qa_f1_zh_score, best reference. meta: first_line_only (optional bool)."""
    return Compared(jieba_f1, line_if_asked)


def leval_f1() -> Metric:
    """L-Eval's f1.py (0 to 1 here, 0 to 100 there), best reference. meta: nothing."""
    return Compared(squad_f1)


def infinitebench_qa_f1() -> Metric:
    """InfiniteBench En.QA, best reference. meta: nothing."""
    return Compared(squad_f1)


def infinitebench_qa_f1_zh() -> Metric:
    """InfiniteBench Zh.QA, over characters, best reference. meta: nothing."""
    return Compared(character_f1)


def libra_f1() -> Metric:
    """LIBRA's f1 (ru_qasper), best reference. meta: nothing."""
    return Compared(russian_f1)


def clongeval_qa_f1() -> Metric:
    """CLongEval's qa_f1_zh_score: first line, up to 问题：; best reference. meta: nothing."""
    return Compared(jieba_f1, _clongeval)


def helmet_f1() -> Metric:
    """HELMET's F1 with its yes/no guard, best reference. meta: nothing."""
    return Compared(guarded_f1)


def lveval_qa_f1() -> Metric:
    """LV-Eval's plain F1 (factrecall_en): the first reference only. meta: nothing."""
    return Compared(squad_f1, best=False)


def lveval_qa_f1_zh() -> Metric:
    """LV-Eval's plain Chinese F1 (factrecall_zh): the first reference only. meta: nothing."""
    return Compared(jieba_f1, best=False)


@dataclass(frozen=True, slots=True)
class Cited:
    """One part of L-CiteEval's overlap; precision, recall and F1 are each maximised over the references."""

    part: Literal["precision", "recall", "f1"]

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1. meta: nothing; references may be numbers."""
        if not sample.references:
            return no_reference()
        answer = cited_answer(prediction)
        tokens = squad(answer).split()
        values = [getattr(overlap(tokens, squad(as_text(r)).split()), self.part) for r in sample.references]
        return Scored(value=max(values), extracted=answer)


def lciteeval_f1() -> Metric:
    """F1 of L-CiteEval's first line without citations."""
    return Cited("f1")


def lciteeval_precision() -> Metric:
    """Precision of L-CiteEval's first line without citations."""
    return Cited("precision")


def lciteeval_recall() -> Metric:
    """Recall of L-CiteEval's first line without citations."""
    return Cited("recall")
