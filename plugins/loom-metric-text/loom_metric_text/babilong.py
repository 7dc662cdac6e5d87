"""BABILong: exactly the target's labels must occur in the first sentence, among labels the question does not name.

The labels are the distinct answers of each bAbI task (Weston et al. 2015, tasks 1 to 20, version 1.2). Matching is by
substring, so "no" is found in "know".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from loom_core.api import Sample, Scored
from loom_metric_text.reference import as_text, needed, no_reference

PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
LABELS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("qa1", "qa2", "qa3", "qa4", "qa11", "qa12", "qa13"), PLACES),
    "qa5": ("Bill", "Fred", "Jeff", "Mary", "apple", "football", "milk"),
    **dict.fromkeys(("qa6", "qa9", "qa17", "qa18"), ("no", "yes")),
    "qa7": ("none", "one", "two", "three"),
    "qa8": ("apple", "football", "milk", "nothing"),
    "qa10": ("maybe", "no", "yes"),
    "qa14": ("bedroom", "cinema", "kitchen", "office", "park", "school"),
    "qa15": ("cat", "mouse", "sheep", "wolf"),
    "qa16": ("gray", "green", "white", "yellow"),
    "qa19": tuple(f"{a},{b}" for a in "nesw" for b in "nesw" if {a, b} not in ({"n", "s"}, {"e", "w"})),
    "qa20": ("bedroom", "bored", "garden", "hungry", "kitchen", "thirsty", "tired"),
}
"""The answers of each task."""


def first_sentence(prediction: str) -> str:
    """Lower case, up to the first "." and the first <context> or <example>."""
    text = prediction.lower().split(".")[0]
    return text.split("<context>")[0].split("<example>")[0]


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """BABILong's compare_answers, 0 or 1.

    whole: a label counts only where it is as a word of its own. The authors' rule finds "one" in "none", so that no
    answer can be right where "none" is (task qa7); this shows what that costs.
    meta: question (text), labels (optional list), task (optional, "qa1" …; names the list in `LABELS` where labels is
    absent; default `sample.task`).
    """

    whole: bool = False

    def score(self, prediction: str, sample: Sample) -> Scored:
        """1 where the labels found are exactly the target's."""
        if not sample.references:
            return no_reference()
        given = sample.meta.get("labels") or LABELS.get(str(sample.meta.get("task", sample.task)))
        labels = {str(label).lower() for label in given or needed(sample, "labels")}
        question, answer = str(needed(sample, "question")).lower(), first_sentence(prediction)
        found = {label for label in labels if self._in(label, answer) and not self._in(label, question)}
        target = as_text(sample.references[0]).lower()
        # A pair of directions ("n,e") is one label; a list of objects ("apple,football") is several.
        wanted = set(target.split(",")) if "," in target and len(target) > 3 else {target}
        return Scored(value=float(found == wanted), extracted=sorted(found))

    def _in(self, label: str, text: str) -> bool:
        return re.search(rf"\b{re.escape(label)}\b", text) is not None if self.whole else label in text


def whole_labels() -> LabelMatch:
    """The same with labels as whole words."""
    return LabelMatch(whole=True)
