"""BM25 over the chunks of one document, on bm25s. Knows terms and scores; chunking and choosing are `loom_core`'s.

score(c, q) = Σ over the terms t of q, each time they occur, of idf(t) · tf · f / (tf + k1 (1 - b + b |c| / avg)) with
tf = tf(t, c) and f = k1 + 1 for okapi and atire, 1 for lucene and robertson. Scores are float64, summed in query order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import bm25s  # type: ignore[import-untyped]
import numpy as np
from loom_rag import Rank, Retriever

from loom_accel_bm25.plugin import BM25Options
from loom_accel_bm25.words import terms

EPSILON = 0.25
"""rank-bm25's floor: a term in more than half of the chunks weighs this share of the mean idf."""


class BM25Retriever(Retriever):
    """The prompt augmentation `bm25`."""

    def __init__(self, options: BM25Options) -> None:
        super().__init__(options)
        self._options = options

    def index(self, texts: Sequence[str]) -> Rank:
        """Ranks chunks by BM25. Chunks without any term of the query score 0 and so keep the document's order."""
        options, pairs = self._options, self._options.cjk == "bigrams"
        corpus = [terms(text, pairs=pairs) for text in texts]
        scored = scorer(corpus, variant=options.variant, k1=options.k1, b=options.b)
        return lambda query: [float(score) for score in scored(terms(query, pairs=pairs))]


def scorer(corpus: Sequence[Sequence[str]], *, variant: str, k1: float, b: float) -> Callable[[Sequence[str]], Any]:
    """Terms of a query → float64 scores [chunks]. corpus: the terms of each chunk."""
    numbers: dict[str, int] = {}
    ids = [[numbers.setdefault(term, len(numbers)) for term in chunk] for chunk in corpus]
    if not numbers:
        return lambda query: np.zeros(len(corpus))
    okapi = variant == "okapi"
    index = bm25s.BM25(
        k1=k1,
        b=b,
        method="atire" if okapi else variant,
        idf_method="lucene" if okapi else variant,
        dtype="float64",
        csc_backend="numpy",
    )
    index.index((ids, dict(numbers)), create_empty_token=False, show_progress=False)
    if okapi:
        _weigh_as_okapi(index, len(corpus))

    def scores(query: Sequence[str]) -> Any:
        known = [numbers[term] for term in query if term in numbers]
        found: Any = index.get_scores_from_ids(known) if known else np.zeros(len(corpus))
        return found

    return scores


def _weigh_as_okapi(index: Any, n_chunks: int) -> None:
    """Put rank-bm25's idf in the place of Lucene's, which is never 0: a term's scores are its idf times its tf part."""
    in_chunks = np.diff(index.scores["indptr"])
    lucene = np.log(1 + (n_chunks - in_chunks + 0.5) / (in_chunks + 0.5))
    okapi = np.array([math.log(n_chunks - n + 0.5) - math.log(n + 0.5) for n in in_chunks])
    okapi[okapi < 0] = EPSILON * okapi.mean()
    index.scores["data"] = index.scores["data"] * np.repeat(okapi / lucene, in_chunks)
