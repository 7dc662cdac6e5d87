"""Prompts from templates: texts with named fields in braces. A user's own prompt for a task, in place of the authors'.

Knows segments and samples; knows no benchmark. A template is what `str.format` reads, with plain names only: `{name}`
is a field, `{{` and `}}` are braces.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from loom_core.contract.errors import UsageError, nearest
from loom_core.contract.keys import digest
from loom_core.contract.prompt import segment
from loom_core.contract.types import Evidence, Prompt, Sample, Segment, SegmentKind

Piece = tuple[str, str | None]
"""Literal text, and the field behind it (None at the end)."""
PARTS = ("system", "instruction", "context", "question", "prefill")
MARK = "~prompt-"


def pieces(template: str, *, where: str) -> tuple[Piece, ...]:
    """A template taken apart. Raises UsageError for a stray brace, and for a field that is not a plain name."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        hint = "a brace that is meant as text is written twice: {{ or }}"
        raise UsageError("a prompt template cannot be read", where=where, why=str(error), hint=hint) from error
    for _, name, form, conversion in parsed:
        if name is not None and (not name.isidentifier() or form or conversion):
            raise UsageError(
                f"a prompt template has a field that is not a plain name: {{{name}}}",
                where=where,
                hint="a field is {name}; a brace that is meant as text is written twice: {{ or }}",
            )
    return tuple((literal, name) for literal, name, _, _ in parsed)


def fields_of(parts: Iterable[Piece]) -> tuple[str, ...]:
    """The names of its fields, each once."""
    return tuple(dict.fromkeys(name for _, name in parts if name is not None))


def filled(parts: Sequence[Piece], values: Mapping[str, Sequence[Segment]]) -> list[Segment]:
    """The segments of a prompt: each field's own, and the words between as instruction up to the last context, and as
    question behind it (all of them where no field is a context)."""
    left = sum(one.kind == "context" for _, name in parts if name for one in values[name])
    found: list[Segment] = []
    for literal, name in parts:
        if literal:
            found.append(segment("instruction" if left else "question", literal))
        for one in values[name] if name else ():
            left -= one.kind == "context"
            if one.text:
                found.append(one)
    return found


def merged(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Neighbours of one kind and role as one segment; contexts stay apart."""
    found: list[Segment] = []
    for one in segments:
        joins = found and one.kind != "context" and not one.apart
        if joins and (found[-1].kind, found[-1].role) == (one.kind, one.role):
            found[-1] = replace(one, text=found[-1].text + one.text)
        else:
            found.append(one)
    return tuple(found)


@dataclass(frozen=True)
class OwnPrompt:
    """A user's template for a task. where: its file or setting, for messages."""

    text: str
    where: str

    @cached_property
    def label(self) -> str:
        """What the task's name gets in every table: a run with another prompt is another task."""
        return MARK + digest(self.text)[:8]

    @cached_property
    def _pieces(self) -> tuple[Piece, ...]:
        parts = pieces(self.text, where=self.where)
        names = [name for _, name in parts if name is not None]
        if not names:
            raise UsageError(
                "a prompt template names no field, so every question would be the same",
                where=self.where,
                hint="write {context} and {question} where they belong",
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"a prompt template names {{{twice[0]}}} twice", where=self.where)
        last = parts[-1][0] if parts[-1][1] is None else ""
        if "prefill" in names and (names[-1] != "prefill" or last.strip()):
            raise UsageError("nothing may follow {prefill}, the start of the model's own answer", where=self.where)
        if "system" in names and (names[0] != "system" or parts[0][0].strip()):
            raise UsageError("nothing may come before {system}", where=self.where)
        return parts

    def check(self) -> None:
        """Raises UsageError where the template cannot be used with any sample."""
        fields_of(self._pieces)

    def applied(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples with this prompt; evidence moves with its context."""
        for sample in samples:
            yield self.of(sample)

    def of(self, sample: Sample) -> Sample:
        """The sample with this prompt. Raises UsageError for a field that it does not have.

        Fields: the sample's parts (system, instruction, context, question, prefill) as the benchmark words them, and
        every text of its `meta` by name; `question` is `meta["question"]` where the benchmark gives it bare.
        """
        values: dict[str, Sequence[Segment]] = {
            name: [segment("instruction", value)] for name, value in sample.meta.items() if isinstance(value, str)
        }
        of_kind: dict[SegmentKind, list[Segment]] = {}
        for one in sample.prompt.segments:
            of_kind.setdefault(one.kind, []).append(one)
        bare = sample.meta.get("question")
        for kind, segments in of_kind.items():
            values[kind] = segments if kind == "context" else [segment(kind, "".join(one.text for one in segments))]
        if isinstance(bare, str):
            values["question"] = [segment("question", bare)]
        for name in fields_of(self._pieces):
            if name not in values:
                raise UsageError(
                    f"a prompt template names {{{name}}}, which sample {sample.id} does not have",
                    where=self.where,
                    hint=nearest(name, values),
                )
        prompt = Prompt(segments=merged(filled(self._pieces, values)))
        return replace(sample, prompt=prompt, evidence=tuple(_moved(sample, prompt)))


def _moved(sample: Sample, prompt: Prompt) -> Iterator[Evidence]:
    """The evidence that lies in contexts, where these are now."""
    before = [i for i, one in enumerate(sample.prompt.segments) if one.kind == "context" and one.text]
    after = [i for i, one in enumerate(prompt.segments) if one.kind == "context"]
    places = dict(zip(before, after, strict=True)) if len(before) == len(after) else {}
    for one in sample.evidence:
        if one.segment in places:
            yield replace(one, segment=places[one.segment])


def read_templates(given: Iterable[str] | Mapping[str, str], folder: Path, *, where: str) -> dict[str, str]:
    """The templates' texts by "bench:task", from `bench:task=FILE` or a table; files relative to `folder`.

    Raises UsageError naming the setting or the file.
    """
    texts: dict[str, str] = {}
    pairs = given.items() if isinstance(given, Mapping) else (item.partition("=")[::2] for item in given)
    for name, file in pairs:
        name = name.strip()
        if not file or ":" not in name or not all(name.split(":", 1)):
            raise UsageError("a template needs a task and a file", where=f"{where}: {name}", hint="BENCHMARK:TASK=FILE")
        if name in texts:
            raise UsageError(f"two templates for {name}", where=where)
        path = folder / Path(file).expanduser()
        try:
            texts[name] = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"the template for {name} cannot be read", where=str(path), why=why) from error
        OwnPrompt(texts[name], str(path)).check()
    return texts
