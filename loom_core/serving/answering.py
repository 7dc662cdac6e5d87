"""What servers do alike around a call: order by context, refuse what does not fit, end at a stop string, fail.

Knows requests and responses; no engine, no network, no tokenizer's insides.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from loom_core.contract.protocols import ModelCard, Tokenizer
from loom_core.contract.types import Generation, Request, Response, Timing


def by_group(requests: Iterator[Request], most: int) -> Iterator[Request]:
    """The requests, those of one context one after the other, taken `most` at a time and in order of appearance."""
    while taken := list(islice(requests, most)):
        groups: dict[str, list[Request]] = {}
        for request in taken:
            groups.setdefault(request.group, []).append(request)
        for group in groups.values():
            yield from group


def misfit(n_in: int, generation: Generation, window: int | None) -> str:
    """Why a prompt of `n_in` tokens cannot be answered under these limits; "" where it can."""
    n_new = generation.max_tokens
    if not n_in:
        return "the prompt is empty: there is no token to continue from"
    if n_new < 1:
        return f"max_tokens={n_new}: an answer has at least one token"
    if window is not None and n_in + n_new > window:
        total = n_in + n_new
        return (
            f"the prompt does not fit the window: {n_in} tokens + {n_new} new = {total} > {window}"
            f" ({total - window} too many)"
        )
    return ""


def first_stop(text: str, stop: Sequence[str], begin: int = 0) -> tuple[int, int] | None:
    """Where the earliest stop string that ends after character `begin` starts, and its length; None without one."""
    found = [(at, len(item)) for item in stop if item and (at := text.find(item, max(0, begin - len(item) + 1))) >= 0]
    return min(found, default=None)


def stop_ids(tokenizer: Tokenizer, generation: Generation) -> frozenset[int]:
    """The tokens that are a stop string each, which may not be among the first `min_tokens` (LongBench's samsum passes
    the last token of "\\n" as an end with min_length, which forbids it as the first token). Empty without a minimum."""
    if not generation.min_tokens:
        return frozenset()
    last = [(text, ids[-1]) for text in generation.stop if text and (ids := tokenizer.encode(text))]
    return frozenset(token for text, token in last if tokenizer.decode([token]) == text)


def all_stop_ids(card: ModelCard, generation: Generation) -> list[int]:
    """The tokens at which an engine stops: the ends of this model, and stop strings that are tokens (`stop_ids`)."""
    ends: Iterable[int] = card.facts.get("end_ids") or ()
    return sorted({*ends, *(stop_ids(card.tokenizer, generation) if card.tokenizer is not None else ())})


def said(tokenizer: Tokenizer, ids: Sequence[int], request: Request) -> str:
    """The text of generated `ids` (end token already taken off), up to the first stop string; with the request's marks,
    which decoding alone drops where they are special tokens."""
    generation = request.generation
    text = _with_marks(tokenizer, ids, request.marks)
    if not generation.stop:
        return text
    begin = len(tokenizer.decode(ids[: generation.min_tokens])) if generation.min_tokens else 0
    end = first_stop(text, generation.stop, begin)
    return text if end is None else text[: end[0]]


def _with_marks(tokenizer: Tokenizer, ids: Sequence[int], marks: Sequence[str]) -> str:
    """The text of `ids`, in which each special token that `marks` are made of stands as it is written there."""
    shown: dict[int, str] = {}
    for mark in marks:
        for token, (start, end) in zip(*tokenizer.offsets(mark), strict=True):
            if start < end and not tokenizer.decode([token]):
                shown[token] = mark[start:end]
    if shown.keys().isdisjoint(ids):
        return tokenizer.decode(ids)
    parts, begin = [], 0
    for place, token in enumerate(ids):
        if token in shown:
            parts += [tokenizer.decode(ids[begin:place]), shown[token]]
            begin = place + 1
    return "".join([*parts, tokenizer.decode(ids[begin:])])


def failure(request: Request, why: str, *, n_in: int, queued: float, started: float | None = None) -> Response:
    """The response to a request that could not be answered; it ends now (`time.perf_counter`)."""
    now = time.perf_counter()
    timing = Timing(queued=queued, started=now if started is None else started, first_token=None, ended=now)
    return Response(
        key=request.key,
        text="",
        finish="error",
        n_in=n_in,
        n_out=0,
        timing=timing,
        n_dropped=request.n_dropped,
        error=why,
    )


def answer(text: str) -> Response:
    """A finished response with this text, as a scorer sees one."""
    timing = Timing(queued=0.0, started=0.0, first_token=None, ended=0.0)
    return Response(key="", text=text, finish="stop", n_in=0, n_out=0, timing=timing)
