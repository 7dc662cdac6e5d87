"""What strategies share that read a context in windows: how large one may be, where it ends, and prompts around it.

Windows are chunks of the one chunker: they end at sentences where they can and together are the context. Knows prompts
and a model's card; knows no strategy and no wording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loom_core.api import (
    MOST_CALLS,
    Generation,
    ModelCard,
    ModelError,
    Prompt,
    Segment,
    Turn,
    context_indices,
    segment,
    with_texts,
)
from loom_rag.chunking import chunks, token_starts

LEAST = 16
"""Tokens of text below which reading in windows makes no sense."""
SLACK = 8
"""Tokens that a text may take more by itself than where it stood."""


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a prompt's contexts. number: from 1, of `n`."""

    text: str
    number: int
    n: int


def task_text(prompt: Prompt) -> str:
    """What is asked of the context: instruction and question, without any context, system text or prefill."""
    return "".join(s.text for s in prompt.segments if s.kind in ("instruction", "question")).strip()


def systems(prompt: Prompt) -> tuple[Segment, ...]:
    """The prompt's system segments, which every call keeps."""
    return tuple(s for s in prompt.segments if s.kind == "system")


def reading(source: Prompt, before: str, text: str, after: str, generation: Generation) -> Turn:
    """A turn that reads one text, whole: words before it, words after it. The source's system segments lead it."""
    parts = (segment("instruction", before), segment("context", text), segment("question", after))
    return Turn(prompt=Prompt(segments=(*systems(source), *parts)), generation=generation, augment=False)


def note_limits(turn: Turn, max_tokens: int) -> Generation:
    """How a note between windows is generated: as the turn is, without its stop strings, up to `max_tokens`."""
    return replace(turn.generation, max_tokens=max_tokens, min_tokens=0, stop=())


def with_context(prompt: Prompt, text: str) -> Prompt:
    """The prompt with `text` in the place of its first context and the others empty."""
    indices = context_indices(prompt)
    texts: Mapping[int, str] = {i: text if i == indices[0] else "" for i in indices}
    return with_texts(prompt, dict(texts))


def windows(
    prompt: Prompt, card: ModelCard, *, size: int | None, overhead: int, reserved: int, further_calls: int
) -> Sequence[Window]:
    """The contexts of a prompt in windows of at most `size` tokens; empty without any context text.

    size: None = what the model's window leaves. overhead: tokens of the emptiest prompt around a window. reserved:
    tokens that must stay free beside it (notes carried along, the answer). further_calls: calls beside one a window.
    Raises ModelError where no size fits or the calls would be more than a job may make.
    """
    text = prompt.context
    if not text.strip():
        return ()
    room = None if card.window is None else card.window - overhead - reserved - SLACK
    if size is None and room is None:
        raise ModelError(
            "how much the model reads at once is not known",
            where=card.name,
            why="the server does not say the model's window",
            hint="give the option window=TOKENS",
        )
    most = min(value for value in (size, room) if value is not None)
    if most < LEAST:
        raise ModelError(
            "the model's window leaves no room for text",
            where=card.name,
            why=f"{card.window} tokens, of them {overhead} for the question and {reserved} for notes and answer",
            hint="shorter notes, or a model with a larger window",
        )
    pieces = chunks(text, token_starts(text, card.tokenizer), size=most)
    if len(pieces) + further_calls > MOST_CALLS:
        raise ModelError(
            f"reading this context would take {len(pieces) + further_calls} calls",
            where=f"windows of {most} tokens",
            why=f"a job may make {MOST_CALLS}",
            hint="a larger window, or shorter contexts",
        )
    return tuple(Window(text[p.start : p.end], number, len(pieces)) for number, p in enumerate(pieces, 1))
