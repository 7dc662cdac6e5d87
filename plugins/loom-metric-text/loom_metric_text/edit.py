"""Edit similarities: a line of code (LongBench) and a passage (CLongEval). Imports rapidfuzz on use.

LongBench calls fuzzywuzzy 0.18, whose number depends on what is installed beside it. With python-Levenshtein, as the
official scores were made, it is 100 times the indel similarity, rounded half to even to a whole number; with difflib
it differs. rapidfuzz computes the same similarity; its own `fuzz.ratio` leaves out the rounding.
"""

from __future__ import annotations

from collections.abc import Callable

from loom_core.api import Metric, Sample
from loom_metric_text.normalise import unpunctuated
from loom_metric_text.reference import Compared


def code_line(prediction: str, sample: Sample) -> str:
    """The first line, after leading line feeds, without "`", "#" or "//"; nothing where there is none."""
    for line in prediction.lstrip("\n").split("\n"):
        if not ("`" in line or "#" in line or "//" in line):
            return line
    return ""


def fuzz_ratio() -> Callable[[str, str], float]:
    """fuzzywuzzy's ratio with python-Levenshtein, over 100: whole hundredths."""
    from rapidfuzz.distance import Indel

    similarity = Indel.normalized_similarity
    return lambda a, b: round(100 * similarity(a, b)) / 100


def edit_similarity(prediction: str, reference: str) -> float:
    """1 - Levenshtein distance / longer length, after `normalise.unpunctuated`; 0 where the prediction is empty."""
    from rapidfuzz.distance import Levenshtein

    a, b = unpunctuated(prediction), unpunctuated(reference)
    longer = max(len(a), len(b))
    return 1 - Levenshtein.distance(a, b) / longer if a and longer else 0.0


def longbench_code_sim() -> Metric:
    """LongBench's code_sim_score (lcc, repobench-p), best reference. meta: nothing."""
    return Compared(fuzz_ratio(), code_line)


def clongeval_edit() -> Metric:
    """CLongEval's retrieval_zh_edit_score (key_passage_retrieval), best reference. meta: nothing."""
    return Compared(edit_similarity)
