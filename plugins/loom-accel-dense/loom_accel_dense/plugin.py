"""Registers `dense-retrieval`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_rag import RetrievalOptions

from loom_core.api import AugmentationSpec, hookimpl, option


@dataclass(frozen=True)
class DenseOptions(RetrievalOptions):
    """Which encoder, how its vectors are made and compared, and how chunks are made and chosen."""

    size: int = option(200, help="most tokens of a chunk; many encoders read no more than 256 of their own", low=1)
    model: str = option(
        "minilm",
        help="minilm (comes with this package), contriever, contriever-msmarco, or a folder or hub id of an encoder",
    )
    pooling: Literal["own", "contriever"] = option(
        "own",
        help="own = as the model's folder says; contriever = mean over tokens, dot product (implied by those names)",
    )
    batch: int = option(32, help="texts encoded together", low=1, how=True)
    device: str | None = option(None, help="where it runs, e.g. cpu or cuda:1; none = its own choice", how=True)


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The retriever `dense-retrieval`; the name `dense` is the baseline arm's."""
    return (
        AugmentationSpec(
            name="dense-retrieval",
            version="1",
            summary="retrieval: keep the chunks whose embedding is nearest to the question's (sentence-transformers)",
            factory="loom_accel_dense.retriever:DenseRetriever",
            kind="prompt",
            options=DenseOptions,
            query_aware=True,
            phase="prompt",
            retrieval=True,
            source="Karpukhin et al. 2020, arXiv:2004.04906; Contriever: Izacard et al. 2021, arXiv:2112.09118, "
            "facebookresearch/contriever:src/contriever.py (mean pooling with the attention mask, dot product)",
            status="never run on a GPU",
        ),
    )
