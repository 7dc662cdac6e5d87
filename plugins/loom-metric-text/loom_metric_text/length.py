"""LongWriter's length score: how near an answer comes to the words asked for. Knows counts only."""

from __future__ import annotations

import re

from loom_core.api import Sample, Scored
from loom_metric_text.reference import failed, needed

_HAN = re.compile(r"[\u4e00-\u9fff]")
_WORD = re.compile(r"\b[a-zA-Z]+\b")


def count_words(text: str) -> int:
    """Chinese characters and words of ASCII letters alone; words with digits, "_" or accents do not count."""
    return len(_HAN.findall(text)) + len(_WORD.findall(text))


def length_score(wanted: float, written: float) -> float:
    """1 at the wanted length; 0 from four times as much, or from a third of it; linear in the ratio between."""
    if wanted <= 0 or written <= 0:
        return 0.0
    if written > wanted:
        return max(0.0, 1 - (written / wanted - 1) / 3)
    return max(0.0, 1 - (wanted / written - 1) / 2)


class LongWriterLength:
    """LongWriter's S_l, 0 to 1 (0 to 100 there). meta: length (words asked for)."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 for an empty answer, where upstream divides by zero."""
        written = count_words(prediction)
        if not written:
            return failed("ZeroDivisionError: no words were written")
        return Scored(value=length_score(float(needed(sample, "length")), written), extracted=written)
