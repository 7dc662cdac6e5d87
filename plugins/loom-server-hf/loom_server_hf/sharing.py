"""Which requests are answered together, and what they continue: nothing, a shared prefix, or a compressed context.

One prefix or context is in hand at a time, across batches while its group goes on. Knows requests and what sharing
costs; decodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loom_core.api import LoomError, Request, UsageError, digest, seed_of
from loom_server_hf.memory import out_of_memory, release_memory
from loom_server_hf.prefix import Prefix, behind, common
from loom_server_hf.shared import Context, compress, may_share, read
from loom_server_hf.taken import Taken, buckets

LEAST = 32
"""Tokens that a prefix must have before it is read apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Requests that may run in one batch, longest first. shared: what they continue. why: no answer can be given."""

    items: list[Taken]
    shared: Prefix | Context | None = None
    why: str = ""


class Sharing:
    """Forms the units of one `generate` call. declared: every method of the arm declares `shares_prefix`.

    on: False reads every prompt whole; contexts of the protocol context-only are compressed once either way.
    """

    def __init__(self, engine: Any, policy: Any, *, declared: bool, on: bool) -> None:
        self._engine, self._policy = engine, policy
        self._on = on and (policy is None or declared)
        self._window: int = 0 if policy is None else policy.need.window
        self._prefix: tuple[str, Prefix] | None = None
        self._context: Context | None = None

    def looks_ahead(self, request: Request) -> bool:
        """Whether the request after this one matters: it may continue the same prefix."""
        return bool(request.group) and self._on

    def units(self, items: Sequence[Taken], upcoming: Request | None) -> Iterator[Unit]:
        """The units of a batch; each must be answered before the next is asked for. upcoming: the request after it."""
        yield from self._on_contexts([item for item in items if item.request.protocol == "context-only"])
        plain = [item for item in items if item.request.protocol != "context-only"]
        if not self._on:
            yield from (Unit(items=bucket) for bucket in buckets(plain))
        else:
            yield from self._on_prefixes(plain, upcoming)

    def _on_prefixes(self, items: Sequence[Taken], upcoming: Request | None) -> Iterator[Unit]:
        groups: dict[str, list[Taken]] = {}
        for item in items:
            groups.setdefault(item.request.group, []).append(item)
        if self._prefix is not None and self._prefix[0] not in groups:
            self._prefix = None
        plans = {group: self._plan(group, rows, upcoming) for group, rows in groups.items()}
        alone = [item for group, rows in groups.items() if plans[group] is None for item in rows]
        yield from (Unit(items=bucket) for bucket in buckets(alone))
        for group, ids in plans.items():
            rows = sorted(groups[group], key=lambda item: -len(item.ids))
            if ids is None:
                continue
            prefix = self._read(group, ids)
            yield from [Unit(items=rows, shared=prefix)] if prefix else (Unit(items=b) for b in buckets(rows))
        if self._prefix is not None and (upcoming is None or upcoming.group != self._prefix[0]):
            self._prefix = None

    def _plan(self, group: str, rows: Sequence[Taken], upcoming: Request | None) -> tuple[int, ...] | None:
        """The prefix that these rows should continue; None where reading them whole costs no more."""
        prompts = [item.ids for item in rows]
        held = self._prefix[1].ids if self._prefix is not None and self._prefix[0] == group else None
        if upcoming is not None and upcoming.group == group and upcoming.token_ids:
            prompts.append(tuple(upcoming.token_ids))
        if not group or (held is None and len(prompts) < 2):
            return None
        shared = held
        if shared is None:
            shared = prompts[0]
            for prompt in prompts[1:]:
                shared = shared[: common(shared, prompt)]
        own = behind(prompts, shared, self._window)
        saved = sum(max(0, len(prompt) - own) for prompt in prompts) - (0 if held else len(shared))
        longest = max(map(len, prompts))
        if len(shared) < LEAST or saved <= 0 or not may_share(self._engine, self._policy, longest):
            return None
        return shared

    def _read(self, group: str, ids: tuple[int, ...]) -> Prefix | None:
        """The prefix in hand, or read now; None where there is no memory for it."""
        if self._prefix is not None and self._prefix[0] == group:
            return self._prefix[1]
        self._prefix = None
        try:
            self._prefix = (group, read(self._engine, ids))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if self._prefix is None:
            release_memory()
            return None
        return self._prefix[1]

    def _on_contexts(self, items: Sequence[Taken]) -> Iterator[Unit]:
        contexts: dict[tuple[int, ...], dict[int, list[Taken]]] = {}
        for item in items:
            try:
                end = context_end(item.request, len(item.ids))
            except LoomError as error:
                yield Unit(items=[item], why=str(error))
                continue
            questions = contexts.setdefault(item.ids[:end], {})
            questions.setdefault(len(item.ids) - end, []).append(item)
        for ids, questions in contexts.items():
            try:
                if self._context is None or self._context.ids != ids:
                    self._context = None
                    # The draw belongs to the context: every question must find the same cache.
                    seed = seed_of(f"context {digest(list(ids))}")
                    self._context = compress(self._engine, ids, self._policy, seed)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            if self._context is None:
                release_memory()
                rows = [item for part in questions.values() for item in part]
                yield Unit(items=rows, why=f"out of memory while a context of {len(ids)} tokens was compressed")
                continue
            for rows in questions.values():
                yield Unit(items=rows, shared=self._context)


def context_end(request: Request, n_tokens: int) -> int:
    """Where the context of a prompt ends, in tokens: what comes before is compressed, the rest is asked.

    Raises UsageError where the protocol context-only has no meaning for this prompt.
    """
    ends = [span.end for span in request.spans if span.kind == "context"]
    hint = "protocol query-aware"
    if not ends:
        why = "a prompt needs a context that can be compressed before the question is seen"
        raise UsageError("context-only: this prompt has no context", why=why, hint=hint)
    end = max(ends)
    early = next((span for span in request.spans if span.kind == "question" and span.start < end), None)
    if early is not None:
        raise UsageError(
            "context-only: question tokens come before the context",
            where=f"tokens {early.start} to {early.end - 1} of a context that ends at {end}",
            why="the method would see the question while it compresses the context",
            hint=hint,
        )
    if end >= n_tokens:
        raise UsageError("context-only: nothing is asked after the context", where=f"{n_tokens} tokens", hint=hint)
    return end
