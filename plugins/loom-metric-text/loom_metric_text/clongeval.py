"""CLongEval's list tasks: news labels, wrong characters, and table cells. Its F1, ROUGE and edit are in their families.

References hold one text of lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from loom_core.api import Metric, Sample, Scored
from loom_metric_text.classification import substring
from loom_metric_text.reference import Compared, as_text, no_reference

_NEWS = re.compile(r"(?<!\d)(\d+)\s*[：，]\s*(\S+)")


def labels(text: str) -> set[tuple[str, str]]:
    """(number, class) of each "新闻 1：体育", "新闻1，体育" or "1，体育"."""
    return {(found[1], found[2]) for found in _NEWS.finditer(text)}


def typos(text: str) -> set[tuple[str, str]]:
    """(paragraph, wrong character) of each line "4，蚔，奇"; the right character is not looked at."""
    fields = (line.strip().split("，") for line in text.split("\n"))
    return {(parts[0].strip(), parts[1].strip()) for parts in fields if len(parts) > 1}


@dataclass(frozen=True, slots=True)
class Recovered:
    """The share of the reference's entries that the prediction has; entries too many cost nothing. meta: nothing."""

    read: Callable[[str], set[tuple[str, str]]]

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        if not sample.references:
            return no_reference()
        wanted = self.read(as_text(sample.references[0]))
        found = self.read(prediction) & wanted
        value = len(found) / len(wanted) if wanted else 0.0
        return Scored(value=value, extracted=sorted("，".join(entry) for entry in found))


def clongeval_news() -> Metric:
    """stacked_news_labeling: the share of (number, class) pairs found."""
    return Recovered(labels)


def clongeval_typos() -> Metric:
    """stacked_typo_detection: the share of (paragraph, wrong character) pairs found, against the whole answer.

    The authors' evaluation joins the answer of every model but GPT-4 to a single typo; their function, which is the
    rule here, does not.
    """
    return Recovered(typos)


def clongeval_table() -> Metric:
    """table_querying: the prediction contains the reference, case and all."""
    return Compared(substring)
