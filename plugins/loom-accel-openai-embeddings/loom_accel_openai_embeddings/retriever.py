"""Ranks chunks by an endpoint's embeddings: batches, a cache, bounded retries. Knows the openai client and vectors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openai
from loom_rag import Rank, Retriever

from loom_accel_openai_embeddings.plugin import OpenAIEmbeddingsOptions
from loom_accel_openai_embeddings.vectors import Vectors
from loom_core.api import ModelError, Tokenizer, digest

NO_KEY = "none"
"""Sent where no key is set: the client wants one, local engines do not read it."""
MOST_FAILURES = 3
"""Requests in a row that may fail, retries included, before the endpoint is not asked again in this worker."""


class EndpointRetriever(Retriever):
    """The prompt augmentation `openai-embeddings`."""

    def __init__(self, options: OpenAIEmbeddingsOptions) -> None:
        super().__init__(options)
        self._options = options
        self._vectors = Vectors(None)
        self._failures = 0
        self._reason = ""

    @contextmanager
    def open(self, tokenizer: Tokenizer | None) -> Iterator[None]:
        """Open the cache; the endpoint is first asked with the first document."""
        place = Path(os.environ.get("LOOM_CACHE") or Path.home() / ".cache" / "loom").expanduser()
        self._vectors = Vectors(place / "embeddings.sqlite" if self._options.cache else None)
        with super().open(tokenizer):
            try:
                yield
            finally:
                self._vectors.close()

    def index(self, texts: Sequence[str]) -> Rank:
        """Ranks chunks by cosine. A chunk of white space is not sent (endpoints refuse it) and scores -1."""
        full = [i for i, text in enumerate(texts) if text.strip()]
        vectors = self.embed([texts[i] for i in full])

        def rank(query: str) -> list[float]:
            scores = [-1.0] * len(texts)
            if query.strip() and full:
                for i, score in zip(full, vectors @ self.embed([query])[0], strict=True):
                    scores[i] = float(score)
            return scores

        return rank

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 vectors of length 1 [texts, width]; each text that is not in the cache is asked for once."""
        options = self._options
        # A lone surrogate is not UTF-8; the endpoint gets what can be sent of it.
        sent = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        keys = [digest([options.base_url, options.model, options.dimensions, text]) for text in sent]
        known = self._vectors.get(keys)
        missing = list({key: text for key, text in zip(keys, sent, strict=True) if key not in known}.items())
        for start in range(0, len(missing), options.batch):
            part = missing[start : start + options.batch]
            rows = self._ask([text for _, text in part])
            made = {key: row for (key, _), row in zip(part, rows, strict=True)}
            self._vectors.put(made)
            known |= made
        widths = {len(vector) for vector in known.values()}
        if len(widths) > 1:
            raise self._problem(f"its vectors have different widths: {sorted(widths)}")
        stacked = np.stack([known[key] for key in keys]) if keys else np.zeros((0, 1), np.float32)
        norms = np.linalg.norm(stacked, axis=1, keepdims=True)
        return np.asarray(stacked / np.where(norms == 0, 1, norms), dtype=np.float32)

    def _ask(self, texts: list[str]) -> list[np.ndarray]:
        """The endpoint's vectors for these texts, in their order; one request."""
        if self._failures >= MOST_FAILURES:
            raise self._problem(f"{self._reason} ({MOST_FAILURES} requests in a row failed; it is not asked again)")
        options = self._options
        key = os.environ.get(options.key_env, "").strip() or NO_KEY
        try:
            with openai.OpenAI(
                base_url=options.base_url, api_key=key, max_retries=options.retries, timeout=options.timeout
            ) as client:
                found = client.embeddings.create(
                    model=options.model,
                    input=texts,
                    encoding_format="float",
                    dimensions=options.dimensions or openai.omit,
                )
            rows = {row.index: np.asarray(row.embedding, dtype=np.float32) for row in found.data or ()}
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            self._failures += 1
            self._reason = f"{type(error).__name__}: {error}".replace(key, "…") if key != NO_KEY else f"{error}"
            raise self._problem(self._reason) from error
        usable = sorted(rows) == list(range(len(texts))) and all(
            r.ndim == 1 and np.isfinite(r).all() for r in rows.values()
        )
        if not usable:
            self._failures += 1
            self._reason = f"{len(texts)} texts were sent, and {len(rows)} usable vectors came back"
            raise self._problem(self._reason)
        self._failures = 0
        self.usage.add(calls=1, tokens=found.usage.total_tokens if found.usage else 0)
        return [rows[i] for i in range(len(texts))]

    def _problem(self, why: str) -> ModelError:
        options = self._options
        return ModelError(
            "the endpoint returned no embeddings",
            where=f"{options.base_url}/embeddings, model={options.model}",
            why=" ".join(why.split())[:400],
            hint=f"check base_url, model and the key in {options.key_env}; running again asks only what failed",
        )
