"""Registers `llamaindex`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_rag import RetrievalOptions

from loom_core.api import AugmentationSpec, hookimpl, option


@dataclass(frozen=True)
class LlamaIndexOptions(RetrievalOptions):
    """Sizes are for LlamaIndex's SentenceSplitter, which counts with the evaluated model's tokenizer."""

    overlap: int = option(20, help="tokens that a chunk may share with the one before it, in whole sentences", low=0)
    model: str = option("minilm", help="the encoder, as for dense-retrieval: minilm, or a folder or hub id")


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The retriever `llamaindex`."""
    return (
        AugmentationSpec(
            name="llamaindex",
            version="1",
            summary="retrieval: LlamaIndex's SentenceSplitter, VectorStoreIndex and retriever",
            factory="loom_accel_llamaindex.retriever:LlamaIndexRetriever",
            kind="prompt",
            options=LlamaIndexOptions,
            query_aware=True,
            phase="prompt",
            retrieval=True,
            source="run-llama/llama_index: llama_index.core SentenceSplitter, VectorStoreIndex.as_retriever",
            status="never run on a GPU",
        ),
    )
