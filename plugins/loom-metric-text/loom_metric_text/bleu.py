"""BLEU of one order, as nltk's sentence_bleu without smoothing counts it. Knows white-space tokens only.

With all weight on one order n: the clipped precision of n-grams times the brevity penalty. Where there is no common
n-gram nltk takes the smallest normal float (2.2e-308) instead of 0, unless not even a word is common, which is 0.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from dataclasses import dataclass

from loom_core.api import Metric, Sample, Scored
from loom_metric_text.reference import as_text, no_reference


def _precision(predicted: list[str], wanted: list[str], n: int) -> tuple[int, int]:
    a, b = (Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for tokens in (predicted, wanted))
    return (a & b).total(), max(1, a.total())


def bleu(prediction: str, reference: str, n: int) -> float:
    """BLEU with all weight on n-grams."""
    predicted, wanted = prediction.split(), reference.split()
    if not predicted or not _precision(predicted, wanted, 1)[0]:
        return 0.0
    common, total = _precision(predicted, wanted, n)
    penalty = 1.0 if len(predicted) > len(wanted) else math.exp(1 - len(wanted) / len(predicted))
    return penalty * math.exp(math.log(common / total if common else sys.float_info.min))


@dataclass(frozen=True, slots=True)
class LoogleBleu:
    """LooGLE's BLEU with the first reference; an empty prediction reads "None". meta: nothing."""

    n: int

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        if not sample.references:
            return no_reference()
        return Scored(value=bleu(prediction or "None", as_text(sample.references[0]), self.n))


def loogle_bleu1() -> Metric:
    """LooGLE's BLEU-1."""
    return LoogleBleu(1)


def loogle_bleu4() -> Metric:
    """LooGLE's BLEU-4: 4-gram precision only (weights 0, 0, 0, 1)."""
    return LoogleBleu(4)
