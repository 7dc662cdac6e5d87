"""Exact and partial match of a pass key. Knows strings only.

Source: henryzhongsc/longctx_bench, eval/passkey_utils/eval_metrics.py (exact_match, partial_match), rewritten from
its behaviour. There, a miss appends nothing to the list of exact matches when the answer is a string; their tables
divide the list's sum by the number of answers, so that a miss is 0 as it is here.
"""

from __future__ import annotations

import string

from loom_core.api import Sample, Scored

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, ASCII punctuation deleted: "1,234,567" is "1234567"; full-width digits stay what they are."""
    return text.lower().translate(_PUNCTUATION)


def exact(prediction: str, key: str) -> bool:
    """True if the normalised prediction contains the normalised key, also inside a longer run of digits."""
    return normalised(key) in normalised(prediction)


def common_substring(prediction: str, key: str) -> str:
    """The longest substring of `key` that `prediction` contains; the first of several; neither is normalised."""
    start, length = 0, 0
    for i in range(len(key)):
        while i + length < len(key) and key[i : i + length + 1] in prediction:
            start, length = i, length + 1
    return key[start : start + length]


def partial(prediction: str, key: str) -> float:
    """Length of the longest common substring over the key's length; 0 for an empty key."""
    return len(common_substring(prediction, key)) / len(key) if key else 0.0


class ExactMatch:
    """`exact` as 0 or 1."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """1 for a hit, 0 for a miss or an empty answer."""
        key = str(sample.references[0])
        hit = exact(prediction, key)
        return Scored(value=float(hit), extracted=key if hit else None)


class PartialMatch:
    """`partial`, 0 to 1."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """The share of the key found in one piece."""
        key = str(sample.references[0])
        return Scored(value=partial(prediction, key), extracted=common_substring(prediction, key))
