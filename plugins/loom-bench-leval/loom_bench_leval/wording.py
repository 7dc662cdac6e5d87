"""What surrounds a document: a wording for each kind of task, and loom's own. Knows no file and no model.

The layout is the authors' (system message; document before the question; how long an answer should be; the second
question of sci_fi). The words here are loom's own: the authors' are read from their programs (`official`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Literal

from loom_core.api import Prompt, SegmentKind, from_parts

Kind = Literal["choice", "topic", "math", "code", "truth", "open"]
KINDS: Mapping[str, Kind] = {
    "coursera": "choice",
    "quality": "choice",
    "tpo": "choice",
    "topic_retrieval_longchat": "topic",
    "gsm100": "math",
    "codeU": "code",
    "sci_fi": "truth",
}
"""The tasks of the exam group; all others are open."""
PLAIN = "{document}\n\n{instruction}"
"""The authors' layout of gsm100 and codeU, without any words."""


def kind_of(task: str) -> Kind:
    """The kind of a task."""
    return KINDS.get(task, "open")


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """sci_fi's second question, on the real world: `old` becomes `new` in the instruction, `tail` follows."""

    old: str
    new: str
    tail: str

    def text(self, instruction: str) -> str:
        """What the second call asks."""
        return instruction.replace(self.old, self.new) + self.tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """system: by task. exam, open: frames for `str.format` with the fields document, instruction and words."""

    name: Literal["official", "loom"]
    system: Mapping[str, str]
    exam: str
    open: str
    second: Second

    def prompt(self, task: str, document: str, instruction: str, n_words: int) -> Prompt:
        """A question on a document. n_words: of the reference, which the authors tell the model in open tasks."""
        kind = kind_of(task)
        frame = PLAIN if kind in ("math", "code") else self.open if kind == "open" else self.exam
        values = {"instruction": instruction, "words": str(n_words)}
        parts: list[tuple[SegmentKind, str]] = [("system", self.system[task])]
        before: SegmentKind = "instruction"
        for literal, field, _, _ in Formatter().parse(frame):
            parts.append((before, literal))
            if field == "document":
                parts.append(("context", document))
                before = "question"
            elif field is not None:
                parts.append((before, values[field]))
        return from_parts(parts)


_SYSTEM: Mapping[Kind, str] = {
    "choice": "You will read a text and then a multiple-choice question on it. Reply with the letter of the right "
    "choice and nothing else; where several choices are right, write their letters one after the other.",
    "topic": "You will read the record of a talk between a user and an assistant that went from topic to topic. "
    "Afterwards you are asked for one of the topics: name it in the user's own words.",
    "math": "You will read problems with their solutions, and at the end a problem without one. Solve it in the same "
    'manner, step by step, and finish with "The answer is" and the number.',
    "code": "You will read many functions, and at the end a program that calls some of them. Work out what it gives "
    'and finish with "the final output is" and that output.',
    "truth": "You will read a story and then a statement on its world. Reply with True or False and nothing else.",
    "open": "You will read a long text and then a task on it. Do the task from the text alone.",
}


def loom_wording(tasks: tuple[str, ...]) -> Wording:
    """loom's own words."""
    return Wording(
        name="loom",
        system={task: _SYSTEM[kind_of(task)] for task in tasks},
        exam="The text:\n{document}\n\nThe question: {instruction}\nThe answer, without any comment:",
        open="The text:\n{document}\n\nThe task: {instruction}\nUse about {words} words:",
        second=Second(
            old="based on the world described in the document",
            new="for the real world, from what you know of it",
            tail="\nTrue or False:",
        ),
    )
