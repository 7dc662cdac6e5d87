"""The base of loom's retrievers, and of strategies that read a context in windows."""

from loom_rag.chunking import GAP, UNSPACED, Chunk, chunks, put_together, sentence_ends, token_starts
from loom_rag.retrieval import Rank, RetrievalOptions, Retriever, Usage, query_of
from loom_rag.windows import Window, note_limits, reading, systems, task_text, windows, with_context

__all__ = [
    "GAP",
    "UNSPACED",
    "Chunk",
    "Rank",
    "RetrievalOptions",
    "Retriever",
    "Usage",
    "Window",
    "chunks",
    "note_limits",
    "put_together",
    "query_of",
    "reading",
    "sentence_ends",
    "systems",
    "task_text",
    "token_starts",
    "windows",
    "with_context",
]
