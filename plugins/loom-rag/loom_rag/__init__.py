"""The base of loom's retrievers, and of strategies that read a context in windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom_core.api import lazily

if TYPE_CHECKING:
    from loom_rag.chunking import (
        GAP as GAP,
        UNSPACED as UNSPACED,
        Chunk as Chunk,
        chunks as chunks,
        put_together as put_together,
        sentence_ends as sentence_ends,
        token_starts as token_starts,
    )
    from loom_rag.retrieval import (
        Rank as Rank,
        RetrievalOptions as RetrievalOptions,
        Retriever as Retriever,
        Usage as Usage,
        query_of as query_of,
    )
    from loom_rag.window import (
        Window as Window,
        note_limits as note_limits,
        reading as reading,
        systems as systems,
        task_text as task_text,
        windows as windows,
        with_context as with_context,
    )

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "loom_rag.chunking": "GAP UNSPACED Chunk chunks put_together sentence_ends token_starts",
        "loom_rag.retrieval": "Rank RetrievalOptions Retriever Usage query_of",
        "loom_rag.window": "Window note_limits reading systems task_text windows with_context",
    },
)
