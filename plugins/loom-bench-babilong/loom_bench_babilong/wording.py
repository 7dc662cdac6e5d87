"""How a question is asked: with the authors' prompts, read from their file, or in loom's own words. Knows no story.

Source: booydar/babilong, babilong/prompts.py: DEFAULT_PROMPTS (instruction, examples and post_prompt of each task) and
the template they are put into; the context is stripped, and so is the whole (get_formatted_input).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from loom_core.api import Data, DataError, DataSource, Prompt, Segment, segment
from loom_core.api.templates import fields_of, filled, merged, pieces

Ask = Callable[[str, str], Prompt]
"""Context and question to a prompt."""
PARTS = ("instruction", "examples", "post_prompt")
LOOM_INSTRUCTION = {
    "qa1": "Facts about where people are stand somewhere in the text below. Later facts replace earlier ones.",
    "qa2": "Facts about people who move and carry things stand somewhere in the text below. "
    "A thing is where its carrier is.",
    "qa3": "Facts about people who move and carry things stand somewhere in the text below, in the order in which they "
    "happened. A thing is where its carrier is.",
    "qa4": "Facts about where places lie stand somewhere in the text below.",
    "qa5": "Facts about people who give things to one another stand somewhere in the text below.",
}


@dataclass(frozen=True, slots=True)
class Authors:
    """The authors' prompt of a task."""

    template: str
    parts: dict[str, str]
    where: str

    def ask(self, context: str, question: str) -> Prompt:
        """The template filled: the context one segment, the question one, the rest instruction and what is between."""
        values = {name: [segment("instruction", text)] for name, text in self.parts.items()}
        values["context"] = [segment("context", context.strip())]
        values["question"] = [segment("question", question)]
        return Prompt(segments=_stripped(merged(filled(pieces(self.template, where=self.where), values))))


def read_prompt(data: Data, source: DataSource, task: str, *, bare: bool) -> Authors:
    """The prompt of a task from the authors' file. bare: instruction, examples and answer form left empty, as they
    also measured. Raises DataError naming what is missing."""
    found = data.constants(source, ("DEFAULT_PROMPTS", "DEFAULT_TEMPLATE"))
    prompts, template = found["DEFAULT_PROMPTS"], str(found["DEFAULT_TEMPLATE"])
    given = prompts.get(task) if isinstance(prompts, dict) else None
    if not isinstance(given, dict) or any(not isinstance(given.get(name), str) for name in PARTS):
        why = f"DEFAULT_PROMPTS[{task!r}] lacks one of {', '.join(PARTS)}, or one is not a text"
        raise DataError("the authors' prompts are not as expected", where=source.pin, why=why)
    if set(fields_of(pieces(template, where=source.pin))) != {*PARTS, "context", "question"}:
        raise DataError("the authors' template is not as expected", where=source.pin, why=repr(template))
    return Authors(template, {name: "" if bare else given[name] for name in PARTS}, source.pin)


def _stripped(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Without the white space around the whole. Bare prompts begin with nothing but white space before the context."""
    found = list(segments)
    while found and not (first := found[0].text.lstrip()):
        del found[0]
    if found:
        found[0] = replace(found[0], text=first)
    while found and not (last := found[-1].text.rstrip()):
        del found[-1]
    if found:
        found[-1] = replace(found[-1], text=last)
    return tuple(found)


def loom_ask(task: str) -> Ask:
    """loom's own wording of a task."""

    def ask(context: str, question: str) -> Prompt:
        lead = f"{LOOM_INSTRUCTION[task]} The rest of the text does not matter.\n\nText:\n"
        tail = f"\n\n{question}\nAnswer with the name alone.\n"
        return Prompt(segments=(segment("instruction", lead), segment("context", context), segment("question", tail)))

    return ask
