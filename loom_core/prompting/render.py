"""Segments to token ids: chat template or plain text, where each segment lies, and an audit of the BOS token.

Rendering happens once, here, so that every server sees the same ids. Knows a tokenizer's contract, no model.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

from loom_core.contract.protocols import Rendered, Tokenizer, lead_ids
from loom_core.contract.types import Prompt, Segment, Span

Chat = Literal["template", "completion"]
Located = tuple[int, int, str]
CHARACTERS_PER_TOKEN = 4
"""The estimate where a server keeps its tokenizer to itself."""


def render(prompt: Prompt, tokenizer: Tokenizer, *, chat: Chat) -> Rendered:
    """The prompt as token ids.

    chat "template": the segments as messages through the model's template, a prefill after it; a model without a
    template gets plain text. chat "completion": the plain concatenation. BOS, or whatever else the tokenizer's own
    convention puts in front, is added exactly where it does; a template brings its own.
    """
    text = tokenizer.chat(messages(prompt)) if chat == "template" else None
    if text is None:
        text, lead = prompt.text, lead_ids(tokenizer)
        located = _concatenated(prompt.segments)
    else:
        lead = ()
        located = _locate(prompt, text, tokenizer)
        if prefill := prefill_text(prompt):
            located.append((len(text), len(text) + len(prefill), "prefill"))
            text += prefill
    plain_ids, offsets = tokenizer.offsets(text)
    ids = (*lead, *plain_ids)
    starts = [start for start, _ in offsets]
    bos = next((i for i, token in enumerate(ids) if token != tokenizer.bos_id), len(ids))
    return Rendered(
        token_ids=ids,
        spans=_token_spans(located, starts, len(lead)),
        text=text,
        bos=bos if tokenizer.bos_id is not None else 0,
        expected_bos=int(tokenizer.adds_bos),
    )


def n_tokens(prompt: Prompt, tokenizer: Tokenizer | None, *, chat: Chat) -> int:
    """How many tokens a prompt renders to; without a tokenizer an estimate, four characters a token, rounded up."""
    if tokenizer is None:
        return -(-len(prompt.text) // CHARACTERS_PER_TOKEN)
    return len(render(prompt, tokenizer, chat=chat).token_ids or ())


def messages(prompt: Prompt) -> list[dict[str, str]]:
    """The segments as chat messages: consecutive equal roles form one, unless a segment stands apart; a trailing
    prefill is left out."""
    rows: list[dict[str, str]] = []
    for segment in prompt.segments:
        if segment.kind == "prefill":
            continue
        if rows and rows[-1]["role"] == segment.role and not segment.apart:
            rows[-1]["content"] += segment.text
        else:
            rows.append({"role": segment.role, "content": segment.text})
    return rows


def prefill_text(prompt: Prompt) -> str:
    """The start of the assistant's answer that the prompt already gives."""
    return "".join(segment.text for segment in prompt.segments if segment.kind == "prefill")


def _concatenated(segments: Sequence[Segment], start: int = 0) -> list[Located]:
    located: list[Located] = []
    for segment in segments:
        located.append((start, start + len(segment.text), segment.kind))
        start += len(segment.text)
    return located


def _locate(prompt: Prompt, text: str, tokenizer: Tokenizer) -> list[Located]:
    """Where the segments stand in a rendered text. Templates may strip a message; then its ends move inwards."""
    located: list[Located] = []
    rows = messages(prompt)
    places = _places(rows, text, tokenizer)
    cursor, parts = 0, [s for s in prompt.segments if s.kind != "prefill"]
    for number, message in enumerate(rows):
        content = message["content"]
        taken: list[Segment] = []
        while parts and sum(len(s.text) for s in taken) < len(content):
            taken.append(parts.pop(0))
        stripped = content.strip()
        at, length = places[number] if places else (text.find(content, cursor), len(content))
        shift = 0 if length == len(content) else content.find(stripped)
        if at < 0:
            at, shift, length = text.find(stripped, cursor), content.find(stripped), len(stripped)
        if at < 0:
            continue
        for start, end, kind in _concatenated(taken):
            low, high = max(start, shift), min(end, shift + length)
            if low < high:
                located.append((at + low - shift, at + high - shift, kind))
        cursor = at + length
    return located


def _places(rows: Sequence[dict[str, str]], text: str, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """(start, length) of each message's content in the rendered text, exactly; empty where the template will not tell.

    Rendering marks in place of the contents gives the template's own words between them, so that a short content is
    not mistaken for a word of the template.
    """
    marks = [f"\ue000{i}\ue001" for i in range(len(rows))]
    skeleton = tokenizer.chat([{**row, "content": mark} for row, mark in zip(rows, marks, strict=True)]) or ""
    places, at = [], 0
    for row, mark in zip(rows, marks, strict=True):
        before, found, skeleton = skeleton.partition(mark)
        following = skeleton.partition("\ue000")[0]
        at += len(before)
        for content in (row["content"], row["content"].strip()):
            if found and text.startswith(content + following, at):
                places.append((at, len(content)))
                at += len(content)
                break
        else:
            return []
    return places if at + len(skeleton) == len(text) else []


def _token_spans(located: Sequence[Located], starts: list[int], lead: int) -> tuple[Span, ...]:
    """Character spans as token spans (a token belongs where it starts); the template fills the gaps."""
    spans: list[Span] = []
    done = 0
    for start, end, kind in sorted(located):
        first, last = bisect_left(starts, start) + lead, bisect_left(starts, end) + lead
        if first > done:
            spans.append(Span(kind="template", start=done, end=first))
        if last > first:
            spans.append(Span(kind=kind, start=first, end=last))  # type: ignore[arg-type]
        done = max(done, last)
    if len(starts) + lead > done:
        spans.append(Span(kind="template", start=done, end=len(starts) + lead))
    return tuple(spans)
