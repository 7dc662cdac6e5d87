"""Ranks chunks by the similarity of their embeddings to the question's. Knows vectors; chunking is `loom_core`'s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from loom_rag import Rank, Retriever

from loom_accel_dense.encoder import Encoder
from loom_accel_dense.plugin import DenseOptions
from loom_core.api import Tokenizer


class DenseRetriever(Retriever):
    """The prompt augmentation `dense-retrieval`. The encoder is opened once and let go with the augmentation."""

    def __init__(self, options: DenseOptions) -> None:
        super().__init__(options)
        self._options = options
        self._encoder: Encoder | None = None

    @contextmanager
    def open(self, tokenizer: Tokenizer | None) -> Iterator[None]:
        """Open the encoder. Raises ModelError where it is missing or of the wrong kind."""
        with super().open(tokenizer):
            _ = self.encoder
            try:
                yield
            finally:
                self._encoder = None

    @property
    def encoder(self) -> Encoder:
        """The encoder, opened on first use."""
        if self._encoder is None:
            options = self._options
            self._encoder = Encoder(options.model, options.pooling, batch=options.batch, device=options.device)
        return self._encoder

    def embed(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray:
        """float32 vectors [texts, width], counted as one call."""
        self.usage.add(calls=1, tokens=sum(self.encoder.count(texts)))
        return self.encoder.encode(texts, query=query)

    def index(self, texts: Sequence[str]) -> Rank:
        """Ranks chunks by dot product, which is the cosine where the model compares by that.

        The encoder reads no more of a chunk than it can; how many chunks it could not read whole is noted.
        """
        most = self.encoder.most_tokens
        self.noted["cut_for_encoder"] = sum(n > most for n in self.encoder.count(texts)) if most else 0
        vectors = self.embed(texts)
        return lambda query: [float(score) for score in vectors @ self.embed([query], query=True)[0]]
