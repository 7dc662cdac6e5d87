"""LlamaIndex splits, indexes and retrieves; its chunks are found again in the text as exact spans.

Knows llama_index and the encoder of `dense-retrieval`, which it takes by that name. The choice among ranked chunks, and
their order in the prompt, are `loom_core`'s.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from loom_rag import Chunk, Rank, Retriever, Usage, token_starts

from loom_accel_llamaindex.plugin import LlamaIndexOptions
from loom_core.api import ModelError, PluginError, Tokenizer, build, installed


class LlamaIndexRetriever(Retriever):
    """The prompt augmentation `llamaindex`."""

    def __init__(self, options: LlamaIndexOptions) -> None:
        super().__init__(options)
        self._options = options
        found = installed().augmentations.get("dense-retrieval")
        made = build(found.spec.options, {"model": options.model}, owner="augmentation llamaindex")
        self._encoder: Any = installed().load(found)(made)

    @contextmanager
    def open(self, tokenizer: Tokenizer | None) -> Iterator[None]:
        """Open the encoder. Raises ModelError where it is missing or of the wrong kind."""
        with super().open(tokenizer), self._encoder.open(tokenizer):
            yield

    def chunk(self, segment: int, text: str, tokenizer: Tokenizer | None) -> list[Chunk]:
        """The chunks of LlamaIndex's SentenceSplitter. It strips white space, which goes to the chunk before it."""
        if not text.strip():
            return super().chunk(segment, text, tokenizer)
        options = self._options
        splitter = SentenceSplitter(
            chunk_size=options.size,
            chunk_overlap=options.overlap,
            tokenizer=tokenizer.encode if tokenizer is not None else lambda part: token_starts(part, None),
        )
        try:
            places = located(text, splitter.split_text(text))
        except ValueError as error:
            raise ModelError(
                "LlamaIndex cannot split this text",
                where=f"llamaindex:size={options.size}",
                why=str(error),
                hint="a larger size",
            ) from error
        starts = token_starts(text, tokenizer)
        return [
            Chunk(
                segment=segment, start=start, end=end, first=bisect_left(starts, start), last=bisect_left(starts, end)
            )
            for start, end in places
        ]

    def index(self, texts: Sequence[str]) -> Rank:
        """Ranks chunks by the scores of a retriever over a VectorStoreIndex of them."""
        nodes = [TextNode(id_=str(i), text=text.strip()) for i, text in enumerate(texts)]
        index = VectorStoreIndex(nodes, embed_model=Embedding(self), show_progress=False)
        retriever = index.as_retriever(similarity_top_k=len(nodes))

        def rank(query: str) -> list[float]:
            scores = [-1.0] * len(nodes)
            for found in retriever.retrieve(query) if query.strip() else ():
                scores[int(found.node.node_id)] = float(found.score or 0.0)
            return scores

        return rank

    def embed(self, texts: Sequence[str], *, query: bool = False) -> list[list[float]]:
        """Vectors of the encoder, metered."""
        self._encoder.usage = Usage()
        found: list[list[float]] = self._encoder.embed(texts, query=query).tolist()
        self.usage.add(calls=self._encoder.usage.calls, tokens=self._encoder.usage.tokens)
        return found


class Embedding(BaseEmbedding):
    """The retriever's encoder, as LlamaIndex wants it."""

    _retriever: LlamaIndexRetriever = PrivateAttr()

    def __init__(self, retriever: LlamaIndexRetriever) -> None:
        super().__init__(model_name="loom", embed_batch_size=2048)
        self._retriever = retriever

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._retriever.embed([query], query=True)[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._retriever.embed([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._retriever.embed(texts)


def located(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    """(start, end) of pieces that a splitter made of a text, in order; together they cover the text.

    A piece is looked for behind the start of the one before it. What lies between two pieces, or before the first and
    behind the last, goes to a neighbour.
    """
    begins, at = [], -1
    for piece in pieces:
        at = text.find(piece, at + 1)
        if at < 0:
            raise PluginError("a chunk of LlamaIndex is not a part of its text", why=repr(piece[:60]))
        begins.append(at)
    begins[0] = 0
    ends = [start + len(piece) for start, piece in zip(begins, pieces, strict=True)]
    ends[0] = max(ends[0], text.find(pieces[0]) + len(pieces[0]))
    following = [*begins[1:], len(text)]
    return [(start, max(end, after)) for start, end, after in zip(begins, ends, following, strict=True)]
