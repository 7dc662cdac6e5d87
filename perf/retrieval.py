"""What retrieval costs on one document of 128k tokens: chunking, indexing, one question, and further ones. Prints JSON.

The text is made of sentences of a vocabulary with Zipf frequencies and a fixed seed; tokens are those of loom-tiny. A
question is eight words of the document. `question` is the ranking alone, after chunking; `rewrite` a whole further
question: the digest of the document, ranking, and the new prompt. Goal: a question within 50 ms for bm25.

    python perf/retrieval.py [--tokens 131072] [--questions 50] [--dense]

Needs loom-accel-bm25 and loom-model-tiny, with --dense loom-accel-dense.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from loom_rag.chunking import chunks, token_starts

from loom_core.api import Prompt, build, installed, segment

WORDS = 20_000


def document(n_words: int) -> tuple[str, list[str]]:
    """A text of sentences, and its words."""
    draw = random.Random(7)
    letters = "etaoinshrdlucmfwypvbgk"
    vocabulary = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(WORDS)]
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(WORDS)))
    words = draw.choices(vocabulary, cum_weights=weights, k=n_words)
    sentences = [" ".join(words[i : i + 14]).capitalize() + "." for i in range(0, n_words, 14)]
    return " ".join(sentences), words


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result) of one call."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def best(rank: Callable[[str], Any], question: str) -> list[int]:
    """The chunks, best first."""
    scores = rank(question)
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def measure(name: str, values: dict[str, str], context: str, questions: list[str], tokenizer: Any) -> dict[str, float]:
    """Milliseconds of a retriever on this document."""
    found = installed().augmentations.get(name)
    retriever = installed().load(found)(build(found.spec.options, values, owner=name))
    prompts = [Prompt(segments=(segment("context", context), segment("question", q))) for q in questions]
    with retriever.open(tokenizer):
        first, _ = timed(lambda: retriever.rewrite(prompts[0], tokenizer))
        further = [timed(partial(retriever.rewrite, prompt, tokenizer))[0] for prompt in prompts[1:]]
        starts = token_starts(context, tokenizer)
        texts = [context[c.start : c.end] for c in chunks(context, starts, size=300)]
        indexing, rank = timed(lambda: retriever.index(texts))
        asked = [timed(partial(best, rank, question))[0] for question in questions]
    seconds = {
        "first_question": first,
        "indexing": indexing,
        "question": statistics.median(asked),
        "question_worst": max(asked),
        "rewrite": statistics.median(further),
    }
    return {f"{key}_ms": round(1000 * value, 3) for key, value in seconds.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--dense", action="store_true")
    chosen = parser.parse_args()
    catalog = installed()
    model = catalog.models.get("loom-tiny")
    server = catalog.load(catalog.servers.get(model.spec.server))
    spec = catalog.servers.get(model.spec.server).spec
    tokenizer = server(spec.options()).describe(str(catalog.load(model)()), spec.model_options()).tokenizer
    context, words = document(chosen.tokens)
    starts = token_starts(context, tokenizer)
    if len(starts) > chosen.tokens:
        context = context[: starts[chosen.tokens]]
    tokenising, starts = timed(lambda: token_starts(context, tokenizer))
    chunking, made = timed(lambda: chunks(context, starts, size=300))
    draw = random.Random(3)
    questions = [" ".join(words[at : at + 8]) for at in (draw.randrange(10_000) for _ in range(chosen.questions))]
    report: dict[str, Any] = {"tokens": len(starts), "characters": len(context), "chunks": len(made)}
    report |= {"tokenising_ms": round(1000 * tokenising, 1), "chunking_ms": round(1000 * chunking, 1)}
    for variant in ("lucene", "okapi"):
        report[f"bm25 {variant}"] = measure("bm25", {"variant": variant}, context, questions, tokenizer)
    if chosen.dense:
        report["dense-retrieval"] = measure("dense-retrieval", {"device": "cpu"}, context, questions[:5], tokenizer)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
