"""The one-shot prompt of L-CiteEval from the authors' prompt file: demonstration, passages, instruction, question.

Source: ZetangForward/L-CITEEVAL@6e49326, script/inference_1shot_vllm.py (make_doc_prompt, make_demo), as facts: the
fields are filled in the order instruction, question, passages; white space at the end is dropped; a demonstration's
answer is put right behind; a passage that has a title is shown without it. Knows the file's layout; holds none
of its text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loom_core.api import DataError, DataSource, Json, Prompt, segment

ROLE = "<<<chatbox>>>"
PASSAGES, QUESTION = "{D}", "{Q}"


def passage_text(document: Json) -> str:
    """A passage's own text: a record gives it as text, or as an object with title and text."""
    return str(document["text"] if isinstance(document, Mapping) else document)


def passage_title(document: Json) -> str | None:
    """A passage's title; None where the record gives none."""
    title = document.get("title") if isinstance(document, Mapping) else None
    return None if title is None else str(title)


def shown_text(document: Json) -> str:
    """What is in the prompt: of an object its text without line feeds at the ends and without its title's line."""
    text = passage_text(document)
    if not isinstance(document, Mapping):
        return text
    text, title = text.strip("\n"), passage_title(document)
    return text if title is None else text.removeprefix(f"{title}\n")


@dataclass(frozen=True, slots=True)
class Wording:
    """A prompt file, checked. role: who speaks in the demonstration (dialsim)."""

    instruction: str
    template: str
    passage: str
    separator: str
    demonstration: Mapping[str, Json]
    role: str

    def prompt(
        self, question: str | None, documents: Sequence[Json], role: str | None, shots: int, most: int
    ) -> Prompt:
        """The demonstration (shots: 0 or 1), then the passages as context, then what is asked. most: passages kept."""
        head = ""
        if shots:
            demo = self.demonstration
            before, passages, after = self._filled(demo["question"], demo["docs"], self.role, most)
            head = f"{before}{passages}{after}".rstrip() + _answer(demo["answer"]) + self.separator
        before, passages, after = self._filled(question, documents, role, most)
        parts = [
            segment("instruction", head + before),
            segment("context", passages),
            segment("question", after.rstrip()),
        ]
        return Prompt(segments=tuple(part for part in parts if part.text))

    def _filled(
        self, question: str | None, documents: Sequence[Json], role: str | None, most: int
    ) -> tuple[str, str, str]:
        """The template before, in and after the passages, with the answer's field removed."""
        instruction = self.instruction.replace(ROLE, role or ROLE)
        text = self.template.replace("{INST}", instruction)
        if QUESTION in self.template:
            text = text.replace(QUESTION, question or "")
        before, _, after = text.partition(PASSAGES)
        numbered = (
            self.passage.replace("{P}", shown_text(document)).replace("{ID}", str(number))
            for number, document in enumerate(documents[:most], 1)
        )
        passages = "".join(numbered)
        # Field names that a record's own text holds are fields to the authors too.
        after = after.replace(PASSAGES, passages)
        return before.replace("{A}", ""), passages.replace("{A}", ""), after.replace("{A}", "")


def _answer(answer: Json) -> str:
    return "\n" + "\n".join(map(str, answer)) if isinstance(answer, list) else str(answer)


def read_wording(text: str, source: DataSource) -> Wording:
    """A prompt file. Raises DataError naming what is missing or of another type."""
    try:
        values = json.loads(text)
        demo = values["demos"][0]
        names = ("instruction", "demo_prompt", "doc_prompt", "demo_sep")
        wrong = [name for name in names if not isinstance(values[name], str)]
        if wrong or PASSAGES not in values["demo_prompt"] or not isinstance(demo["docs"], list):
            raise ValueError(f"{', '.join(wrong) or 'demo_prompt or demos'} is not what this plugin knows")
        return Wording(
            instruction=values["instruction"],
            template=values["demo_prompt"],
            passage=values["doc_prompt"],
            separator=values["demo_sep"],
            demonstration={name: demo.get(name) for name in ("question", "docs", "answer")},
            role=str(values.get("demo_role", "")),
        )
    except (ValueError, TypeError, KeyError, IndexError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        hint = "loom data verify lciteeval"
        raise DataError("a prompt file of L-CiteEval cannot be used", where=source.pin, why=why, hint=hint) from error


@dataclass(frozen=True, slots=True)
class Settings:
    """A run configuration: the prompt file, demonstrations, and the most passages."""

    prompt_file: str
    shots: int
    most: int


def read_settings(text: str, source: DataSource) -> Settings:
    """A run configuration, whose YAML is plain `name: value` lines. Raises DataError."""
    values = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            values[name.strip()] = value.strip()
    try:
        found = Settings(prompt_file=values["prompt_file"], shots=int(values["shot"]), most=int(values["ndoc"]))
        if found.shots not in (0, 1):
            raise ValueError(f"shot is {found.shots}; the prompt file has one demonstration")
    except (ValueError, KeyError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError("a run configuration of L-CiteEval cannot be used", where=source.pin, why=why) from error
    return found
