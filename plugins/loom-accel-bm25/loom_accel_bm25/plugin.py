"""Registers `bm25`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_rag import RetrievalOptions

from loom_core.api import AugmentationSpec, hookimpl, option


@dataclass(frozen=True)
class BM25Options(RetrievalOptions):
    """How chunks are made and chosen, and which BM25 ranks them; k1 and b are the defaults of bm25s and rank-bm25."""

    variant: Literal["lucene", "okapi", "robertson", "atire"] = option(
        "lucene", help="the formula: as in bm25s, or okapi as in rank-bm25"
    )
    k1: float = option(1.5, help="how slowly repeated words count less", low=0.0)
    b: float = option(0.75, help="how much long chunks are discounted", low=0.0, high=1.0)
    cjk: Literal["bigrams", "characters"] = option(
        "bigrams", help="terms of scripts without spaces between words, and of Korean"
    )


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The retriever `bm25`."""
    return (
        AugmentationSpec(
            name="bm25",
            version="1",
            summary="retrieval: keep the chunks of the context that share the question's words (BM25)",
            factory="loom_accel_bm25.retriever:BM25Retriever",
            kind="prompt",
            options=BM25Options,
            query_aware=True,
            phase="prompt",
            retrieval=True,
            source="Robertson and Zaragoza 2009, The Probabilistic Relevance Framework; formulas as in xhluca/bm25s "
            "(Kamphuis et al. 2020) and, for okapi, dorianbrown/rank_bm25:rank_bm25.py:BM25Okapi",
        ),
    )
