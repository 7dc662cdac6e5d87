"""ROUGE as the package `rouge_score` 0.1.2 counts it, rewritten with fast rows. Knows its tokenizer and bags.

What is peculiar: only ASCII letters and digits make words (Chinese gives none); n-grams are bags; ROUGE-Lsum takes
lines as sentences. With stemming, words longer than three letters go through nltk's Porter stemmer.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from loom_core.api import Metric, Sample, Scored
from loom_metric_text import lcs
from loom_metric_text.f1 import NOTHING, Overlap
from loom_metric_text.reference import as_text, no_reference

_WORD = re.compile(r"[a-z0-9]+")


@functools.cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

    return PorterStemmer()


@functools.lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    """A word of more than three letters, stemmed; a stem that is no longer a word is kept out by `words`."""
    return str(_stemmer().stem(word)) if len(word) > 3 else word


def words(text: str, stem: bool = False) -> list[str]:
    """Lower-case runs of ASCII letters and digits, stemmed if asked."""
    found = _WORD.findall(text.lower())
    return [s for s in map(_stem, found) if _WORD.fullmatch(s)] if stem else found


def _scores(common: int, predicted: int, wanted: int) -> Overlap:
    precision, recall = common / max(predicted, 1), common / max(wanted, 1)
    if precision + recall > 0:
        return Overlap(precision, recall, 2 * precision * recall / (precision + recall))
    return NOTHING


def rouge_n(prediction: str, reference: str, n: int, stem: bool = False) -> Overlap:
    """ROUGE-N over bags of n-grams."""
    a, b = words(prediction, stem), words(reference, stem)
    bags = [Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for tokens in (a, b)]
    return _scores((bags[0] & bags[1]).total(), bags[0].total(), bags[1].total())


def rouge_l(prediction: str, reference: str, stem: bool = False) -> Overlap:
    """ROUGE-L of the whole texts as one sentence."""
    a, b = words(prediction, stem), words(reference, stem)
    return _scores(lcs.length(a, b), len(a), len(b)) if a and b else NOTHING


def rouge_lsum(prediction: str, reference: str, stem: bool = False) -> Overlap:
    """ROUGE-Lsum: each line of the reference against every line of the prediction, positions united, words bounded.

    A word counts at most as often as it is in either text.
    """
    predicted = [words(line, stem) for line in prediction.split("\n") if line]
    wanted = [words(line, stem) for line in reference.split("\n") if line]
    left, right = Counter(w for line in predicted for w in line), Counter(w for line in wanted for w in line)
    n, m = left.total(), right.total()
    if not n or not m:
        return NOTHING
    hits = 0
    for line in wanted:
        # Rows are the prediction's words, so that a tie gives up a word of the reference, as the package does.
        united = sorted({j for other in predicted for _, j in lcs.walk(other, line)})
        for word in (line[j] for j in united):
            if left[word] > 0 and right[word] > 0:
                hits += 1
                left[word] -= 1
                right[word] -= 1
    return _scores(hits, n, m)


@dataclass(frozen=True, slots=True)
class RougeScore:
    """A part of one of the functions above, for the reference with the greatest value of that part."""

    count: Callable[[str, str], Overlap]
    part: Literal["precision", "recall", "f1"] = "f1"

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1; 0 for an empty prediction. meta: nothing."""
        if not sample.references:
            return no_reference()
        values = [getattr(self.count(prediction, as_text(r)), self.part) for r in sample.references]
        return Scored(value=max(values), detail={"reference": values.index(max(values))} if len(values) > 1 else {})


def leval_rouge1() -> Metric:
    """L-Eval's ROUGE-1 F, one factor of its geometric mean, no stemmer."""
    return RougeScore(functools.partial(rouge_n, n=1))


def leval_rouge2() -> Metric:
    """L-Eval's ROUGE-2 F, one factor of its geometric mean, no stemmer."""
    return RougeScore(functools.partial(rouge_n, n=2))


def leval_rouge_l() -> Metric:
    """L-Eval's ROUGE-L F, one factor of its geometric mean, no stemmer."""
    return RougeScore(rouge_l)


def infinitebench_rouge_lsum() -> Metric:
    """InfiniteBench En.Sum: ROUGE-Lsum F, no stemmer, no sentence split (lines only)."""
    return RougeScore(rouge_lsum)


def helmet_rouge_l_f1() -> Metric:
    """HELMET's ROUGE-L F with stemmer."""
    return RougeScore(functools.partial(rouge_l, stem=True))


def helmet_rouge_l_recall() -> Metric:
    """HELMET's ROUGE-L recall with stemmer."""
    return RougeScore(functools.partial(rouge_l, stem=True), "recall")


def helmet_rouge_lsum_f1() -> Metric:
    """HELMET's ROUGE-Lsum F with stemmer."""
    return RougeScore(functools.partial(rouge_lsum, stem=True))


def helmet_rouge_lsum_recall() -> Metric:
    """HELMET's ROUGE-Lsum recall with stemmer."""
    return RougeScore(functools.partial(rouge_lsum, stem=True), "recall")


def geometric_mean(one: float, two: float, longest: float) -> float:
    """L-Eval's score of a summary task: the cube root of the product of three corpus means."""
    return float((one * two * longest) ** (1 / 3))
