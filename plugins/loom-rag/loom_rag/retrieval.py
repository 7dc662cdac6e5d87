"""What all retrievers share: options, one index a document, the choice of chunks, and the rewritten context.

A retriever brings one thing: how well each chunk of a document suits a query. Knows chunks and prompts; knows no
embedding, no endpoint and no model.
"""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from loom_core.api import (
    Budget,
    Json,
    Kept,
    ModelError,
    PluginError,
    Prompt,
    Rewritten,
    Tokenizer,
    context_indices,
    option,
    with_texts,
)
from loom_rag.chunking import Chunk, chunks, n_tokens, put_together, token_starts

DEFAULT_K = 5
INDEXES_KEPT = 16
"""Documents whose index is kept for further questions."""

Rank: TypeAlias = Callable[[str], Sequence[float]]
"""A query → one score for each chunk of a document; higher is better."""


@dataclass(frozen=True)
class RetrievalOptions:
    """What every retriever can be told. Tokens are those of the evaluated model."""

    k: int | None = option(
        None, help=f"most chunks kept; by default {DEFAULT_K}, or with a budget as many as fit", low=1
    )
    size: int = option(300, help="most tokens of a chunk; it ends at a sentence where it can", low=1)
    overlap: int = option(0, help="tokens that a chunk may share with the one before it", low=0)
    budget: Budget | None = option(
        None, help="most context tokens kept, e.g. 2048 or 4x; chunks are taken by rank until one does not fit"
    )

    def __post_init__(self) -> None:
        if self.overlap >= self.size:
            raise ValueError(f"overlap={self.overlap} is not below size={self.size}: chunks would not move on")
        if self.budget is not None and self.budget.bytes_ is not None:
            raise ValueError(f"budget={self.budget}: a retriever keeps tokens; write 2048 or 4x")
        if self.budget is not None and self.budget.tokens is not None and self.budget.tokens < self.size:
            raise ValueError(f"budget={self.budget} is smaller than one chunk (size={self.size})")


@dataclass
class Usage:
    """What a retriever asked of other models, counted while it works."""

    calls: int = 0
    tokens: int = 0
    cost: float | None = None

    def add(self, *, calls: int = 0, tokens: int = 0, cost: float | None = None) -> None:
        """Count calls, the tokens they read, and their cost where it is known."""
        self.calls, self.tokens = self.calls + calls, self.tokens + tokens
        if cost is not None:
            self.cost = (self.cost or 0.0) + cost


@dataclass(frozen=True, slots=True)
class Document:
    """The contexts of a prompt as chunks, and the ranking made of them."""

    texts: Mapping[int, str]
    chunks: Sequence[Chunk]
    rank: Rank
    noted: Mapping[str, Json]

    @property
    def n_tokens(self) -> int:
        """Tokens of all chunks, what they share counted once."""
        return n_tokens(self.chunks)


class Retriever(ABC):
    """A prompt augmentation that keeps the chunks of the context that suit the question best.

    Subclasses give `index`. While it is open, a document is chunked and indexed once for all its questions.
    """

    def __init__(self, options: RetrievalOptions) -> None:
        self._retrieval = options
        self._documents: OrderedDict[str, Document] = OrderedDict()
        self.usage = Usage()
        self.noted: dict[str, Json] = {}

    @abstractmethod
    def index(self, texts: Sequence[str]) -> Rank:
        """What ranks these chunks (at least one) for a query.

        What it asks of other models is added to `self.usage`; what a reader of the records must know of the document (a
        chunk that the encoder could not read whole) goes to `self.noted`, and must be equal in any process.
        """

    @contextmanager
    def open(self, tokenizer: Tokenizer | None) -> Iterator[None]:
        """Keep indexes until closed. A subclass that holds a model or a client extends this."""
        try:
            yield
        finally:
            self._documents.clear()

    def rewrite(
        self, prompt: Prompt, tokenizer: Tokenizer | None, *, chat: Literal["template", "completion"] = "template"
    ) -> Rewritten:
        """The prompt with only the best chunks in its contexts, in their order, and which spans these are.

        Raises ModelError where the best chunk alone is larger than the budget.
        """
        self.usage = Usage()
        if not prompt.context:
            return Rewritten(prompt=prompt, kept=(), tokens_before=0, tokens_after=0, facts={"chunks": 0, "kept": 0})
        began = time.perf_counter()
        document = self._document(prompt, tokenizer)
        index_seconds = time.perf_counter() - began
        chosen = self._choose(document, query_of(prompt))
        texts, kept = put_together(document.texts, chosen)
        facts: dict[str, Json] = {"chunks": len(document.chunks), "kept": len(chosen), **document.noted}
        if tokenizer is None:
            facts["estimated"] = True
        return Rewritten(
            prompt=with_texts(prompt, texts),
            kept=(*kept, *_others(prompt)),
            calls=self.usage.calls,
            read_tokens=self.usage.tokens,
            cost=self.usage.cost,
            index_seconds=index_seconds,
            tokens_before=document.n_tokens,
            tokens_after=n_tokens(chosen),
            facts=facts,
        )

    def _document(self, prompt: Prompt, tokenizer: Tokenizer | None) -> Document:
        """The prompt's contexts, chunked and indexed; kept for the next question on them."""
        texts = {i: prompt.segments[i].text for i in context_indices(prompt)}
        key = hashlib.sha256()
        for i, text in texts.items():
            key.update(f"{i}\0{len(text)}\0".encode() + text.encode("utf-8", "surrogatepass"))
        found = self._documents.get(key.hexdigest())
        if found is None:
            found = self._indexed(texts, tokenizer)
            self._documents[key.hexdigest()] = found
            if len(self._documents) > INDEXES_KEPT:
                self._documents.popitem(last=False)
        self._documents.move_to_end(key.hexdigest())
        return found

    def _indexed(self, texts: Mapping[int, str], tokenizer: Tokenizer | None) -> Document:
        rows = [chunk for i, text in texts.items() for chunk in self.chunk(i, text, tokenizer)]
        self.noted = {}
        rank = self.index([texts[row.segment][row.start : row.end] for row in rows])
        return Document(texts, rows, rank, self.noted)

    def chunk(self, segment: int, text: str, tokenizer: Tokenizer | None) -> list[Chunk]:
        """The chunks of one context segment. A retriever with a splitter of its own replaces this."""
        options = self._retrieval
        starts = token_starts(text, tokenizer)
        return chunks(text, starts, size=options.size, overlap=options.overlap, segment=segment)

    def _choose(self, document: Document, query: str) -> list[Chunk]:
        """The best chunks within k and budget, best first. Equal scores: the earlier chunk."""
        scores = [float(score) for score in document.rank(query)]
        if len(scores) != len(document.chunks) or not all(map(math.isfinite, scores)):
            name = type(self).__name__
            raise PluginError(f"{name} gave {len(scores)} scores for {len(document.chunks)} chunks, or no numbers")
        options = self._retrieval
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
        ranked = [document.chunks[i] for i in order[: options.k or (DEFAULT_K if options.budget is None else None)]]
        if options.budget is None:
            return ranked
        most = options.budget.slots(document.n_tokens)
        chosen: list[Chunk] = []
        for chunk in ranked:
            if n_tokens([*chosen, chunk]) > most:
                break
            chosen.append(chunk)
        if not chosen:
            raise ModelError(
                "the budget is smaller than the best chunk",
                where=f"budget={options.budget}, size={options.size}",
                why=f"{most} of {document.n_tokens} context tokens may be kept; that chunk has {ranked[0].n_tokens}",
                hint="a smaller size, or a larger budget",
            )
        return chosen


def query_of(prompt: Prompt) -> str:
    """What to look for: the question; without one the instruction; without that all text beside the context."""
    for kinds in (("question",), ("instruction",), ("system", "prefill")):
        text = "".join(segment.text for segment in prompt.segments if segment.kind in kinds).strip()
        if text:
            return text
    return ""


def _others(prompt: Prompt) -> list[Kept]:
    """The segments that no retriever touches, as kept."""
    rows = enumerate(prompt.segments)
    return [Kept(segment=i, start=0, end=len(s.text), at=0) for i, s in rows if s.kind != "context"]
