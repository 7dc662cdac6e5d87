"""Edits of prompts that keep their parts apart. Knows segments; knows no tokens, no template, no model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from loom_core.contract.types import Prompt, Role, Sample, Segment, SegmentKind


def segment(kind: SegmentKind, text: str, role: Role | None = None) -> Segment:
    """A segment with the role its kind usually has: system, assistant for a prefill, else user."""
    usual: dict[str, Role] = {"system": "system", "prefill": "assistant"}
    return Segment(kind=kind, text=text, role=role or usual.get(kind, "user"))


def from_parts(parts: Iterable[tuple[SegmentKind, str]]) -> Prompt:
    """A prompt of (kind, text): neighbours of one kind become one segment, empty texts go, but for a context."""
    joined: list[tuple[SegmentKind, str]] = []
    for kind, text in parts:
        if joined and joined[-1][0] == kind != "context":
            joined[-1] = (kind, joined[-1][1] + text)
        elif text or kind == "context":
            joined.append((kind, text))
    return Prompt(segments=tuple(segment(kind, text) for kind, text in joined))


def with_texts(prompt: Prompt, texts: dict[int, str]) -> Prompt:
    """The prompt with the texts of some segments (by index) replaced."""
    return Prompt(segments=tuple(replace(s, text=texts[i]) if i in texts else s for i, s in enumerate(prompt.segments)))


def without_contexts(sample: Sample) -> Sample:
    """The sample with empty context texts: enough for tables, references and levels."""
    return replace(sample, prompt=with_texts(sample.prompt, dict.fromkeys(context_indices(sample.prompt), "")))


def context_indices(prompt: Prompt) -> tuple[int, ...]:
    """The indices of the context segments: the only ones that truncation and augmentations may change."""
    return tuple(i for i, s in enumerate(prompt.segments) if s.kind == "context")


def unfit_for_context_only(prompt: Prompt) -> str:
    """Why a context cannot be compressed before its question is seen; "" where it can."""
    contexts = context_indices(prompt)
    if not contexts:
        return "the prompt has no context"
    if any(s.kind == "question" for s in prompt.segments[: contexts[-1]]):
        return "question tokens come before the context"
    return ""


def only_context_changed(before: Prompt, after: Prompt) -> bool:
    """True if `after` differs from `before` in the texts of context segments alone."""
    return [s for s in before.segments if s.kind != "context"] == [s for s in after.segments if s.kind != "context"]
