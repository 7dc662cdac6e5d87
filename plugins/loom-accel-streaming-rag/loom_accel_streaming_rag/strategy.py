"""Streaming RAG, by loom's own definition: read once, in order, and keep what fits a buffer. Knows windows, no model.

Each window is shown as numbered passages, beside the evidence kept so far; the reply names the passages to keep. The
buffer holds whole passages, unaltered; when it is full, the oldest leave. The answer is given from the buffer alone.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from loom_rag import GAP, Window, chunks, note_limits, reading, task_text, token_starts, windows, with_context

from loom_accel_streaming_rag.plugin import StreamingRAGOptions
from loom_core.api import ModelCard, Prompt, Response, Turn
from loom_core.api.serving import n_tokens

REPLY_TOKENS = 64
NOTHING = "(none yet)"
NUMBER = re.compile(r"\d+")
MARK_TOKENS = 12
"""Tokens that a passage's number and the lines around it take at most."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage and how many tokens it has where it is in its window."""

    text: str
    n_tokens: int


class StreamingRAG:
    """The strategy `streaming-rag`."""

    def __init__(self, options: StreamingRAGOptions) -> None:
        self._options = options
        self._card: ModelCard | None = None

    @contextmanager
    def open(self, card: ModelCard) -> Iterator[None]:
        """Learn the model's tokenizer and window."""
        self._card = card
        yield

    def solve(self, turn: Turn) -> Generator[Turn, Response, str]:
        """One call a window, and one that answers from the buffer."""
        if not turn.prompt.context.strip():
            return (yield turn).text
        kept: list[Passage] = []
        for window in self._windows(turn):
            passages = self._passages(window)
            shown = reader_prompt(turn.prompt, window, passages, kept)
            reply = yield reading(turn.prompt, *shown, note_limits(turn, REPLY_TOKENS))
            kept = self._keep(kept, [passages[i] for i in chosen(reply.text, len(passages))])
        evidence = GAP.join(passage.text for passage in kept)
        return (yield replace(turn, prompt=with_context(turn.prompt, evidence), augment=False)).text

    def _windows(self, turn: Turn) -> Sequence[Window]:
        assert self._card is not None, "open() comes first"
        options = self._options
        empty = reading(
            turn.prompt, *reader_prompt(turn.prompt, Window("", 99, 99), (), ()), note_limits(turn, REPLY_TOKENS)
        )
        size = options.window
        overhead = n_tokens(empty.prompt, self._card.tokenizer, chat="template")
        if self._card.window is not None:
            # Passages are at least a quarter full: so many more tokens do the marks around them take, at most.
            room = self._card.window - overhead - REPLY_TOKENS
            fitting = int(room / (1 + 4 * MARK_TOKENS / options.passage)) - options.buffer - MARK_TOKENS
            size = fitting if size is None else min(size, fitting)
        return windows(
            turn.prompt,
            self._card,
            size=size,
            overhead=overhead,
            reserved=options.buffer + REPLY_TOKENS,
            further_calls=1,
        )

    def _passages(self, window: Window) -> tuple[Passage, ...]:
        assert self._card is not None
        starts = token_starts(window.text, self._card.tokenizer)
        pieces = chunks(window.text, starts, size=self._options.passage)
        return tuple(Passage(window.text[piece.start : piece.end], piece.n_tokens) for piece in pieces)

    def _keep(self, kept: Sequence[Passage], new: Sequence[Passage]) -> list[Passage]:
        """The buffer with these passages added at its end; the oldest leave until it holds."""
        rows = [*kept, *new]
        while sum(row.n_tokens for row in rows) > self._options.buffer:
            rows.pop(0)
        return rows


def chosen(reply: str, n: int) -> list[int]:
    """The passages that a reply names by their number from 1, as indices in order; other numbers are ignored."""
    return sorted({int(text) - 1 for text in NUMBER.findall(reply) if len(text) < 9 and 1 <= int(text) <= n})


def reader_prompt(
    source: Prompt, window: Window, passages: Sequence[Passage], kept: Sequence[Passage]
) -> tuple[str, str, str]:
    """What the reader of a window is shown before its passages, the passages, and what it is asked after them."""
    evidence = GAP.join(passage.text for passage in kept)
    before = (
        f"A long text is read once, in {window.n} parts. This is part {window.number}. Only passages that are kept "
        f"can be used later.\n\nThe task that will be solved in the end:\n{task_text(source)}\n\n"
        f"Passages kept so far:\n{evidence or NOTHING}\n\nThe passages of this part:\n"
    )
    shown = "".join(f"[{number}] {passage.text.strip()}\n" for number, passage in enumerate(passages, 1))
    after = (
        "\nWhich passages of this part are needed for the task? Write their numbers, separated by commas, "
        "or the word none.\nNumbers: "
    )
    return before, shown, after
