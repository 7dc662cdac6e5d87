"""Registers `openai-embeddings`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from loom_rag import RetrievalOptions

from loom_core.api import AugmentationSpec, hookimpl, option


@dataclass(frozen=True)
class OpenAIEmbeddingsOptions(RetrievalOptions):
    """Which endpoint and model, and how it is asked. The key comes from the environment and from nowhere else."""

    model: str = option("text-embedding-3-small", help="the endpoint's name of the embedding model")
    base_url: str = option("https://api.openai.com/v1", help="the endpoint, up to and including /v1", reach=True)
    dimensions: int | None = option(None, help="width of the vectors, for models that can shorten them", low=1)
    key_env: str = option(
        "OPENAI_API_KEY", help="environment variable that holds the key; may be unset", how=True, reach=True
    )
    batch: int = option(256, help="texts in one request; OpenAI takes up to 2048", low=1, high=2048, how=True)
    retries: int = option(3, help="further attempts after a failure that may pass", low=0, high=10, how=True)
    timeout: float = option(60.0, help="seconds that one attempt may take", low=0.01, how=True)
    cache: bool = option(True, help="keep vectors on disk, in loom's cache folder, for other arms and runs", how=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url={self.base_url!r} is not an http address")
        if parts.username or parts.password or parts.query:
            raise ValueError("base_url holds a user name or a query; keys are given in the environment")


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The retriever `openai-embeddings`."""
    return (
        AugmentationSpec(
            name="openai-embeddings",
            version="1",
            summary="retrieval: keep the chunks nearest to the question by an OpenAI-compatible endpoint's embeddings",
            factory="loom_accel_openai_embeddings.retriever:EndpointRetriever",
            kind="prompt",
            options=OpenAIEmbeddingsOptions,
            query_aware=True,
            phase="prompt",
            retrieval=True,
            source="OpenAI API reference, POST /v1/embeddings; cosine similarity",
            status="never run against OpenAI's own endpoint",
        ),
    )
