"""What an answer holds of a needle's fact. Knows strings only.

The authors let a language model score answers from 1 to 10 (`judging`). The two metrics here are loom's own, named for
what they count: neither is the official score.
"""

from __future__ import annotations

import re

from loom_core.api import Sample, Scored

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words(text: str) -> list[str]:
    """The words of a text in lower case; punctuation parts them, an apostrophe inside a word does not."""
    return WORD.findall(text.lower())


def contains(answer: str, fact: str) -> bool:
    """True if the words of the fact stand in the answer one after the other, whole."""
    return bool(words(fact)) and f" {' '.join(words(fact))} " in f" {' '.join(words(answer))} "


def word_recall(answer: str, fact: str, question: str) -> float:
    """The share of the fact's distinct words that the answer has; words of the question do not count."""
    wanted = set(words(fact)) - set(words(question))
    return len(wanted & set(words(answer))) / len(wanted) if wanted else 0.0


class Contains:
    """`contains`, as the share of needles."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        facts = [str(fact) for fact in sample.references]
        found = [fact for fact in facts if contains(prediction, fact)]
        return Scored(value=len(found) / len(facts) if facts else 0.0, extracted=found)


class WordRecall:
    """`word_recall`, as the mean over needles. meta: question."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        question = str(sample.meta.get("question", ""))
        shares = [word_recall(prediction, str(fact), question) for fact in sample.references]
        return Scored(value=sum(shares) / len(shares) if shares else 0.0)
