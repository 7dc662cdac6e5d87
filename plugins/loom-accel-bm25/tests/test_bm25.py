"""BM25: scores against rank-bm25, bm25s and the formula; terms of many scripts; what is kept, and how it is told."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import bm25s
import numpy as np
import pytest
from hypothesis import given, strategies as st
from loom_accel_bm25.plugin import BM25Options
from loom_accel_bm25.retriever import BM25Retriever, scorer
from loom_accel_bm25.words import terms
from rank_bm25 import BM25Okapi

from loom_core.api import Budget, Prompt, UsageError, installed, parse_arms, segment
from loom_core.api.doubles import ToyTokenizer

THREE = [
    ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"],
    ["paris", "is", "the", "capital", "of", "france", "and", "paris", "is", "large"],
    ["a", "capital", "letter", "begins", "a", "sentence"],
]
QUERY = ["what", "is", "the", "capital", "of", "france", "the", "capital"]

WORDS = st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "rho", "tau", "phi"]), max_size=12)
CORPORA = st.lists(WORDS, min_size=1, max_size=8).filter(any)


def prompt(context: str, question: str = "What is the capital of France?") -> Prompt:
    """Instruction, context and question."""
    return Prompt(
        segments=(segment("instruction", "Read.\n"), segment("context", context), segment("question", question))
    )


def by_formula(corpus: list[list[str]], query: list[str], k1: float, b: float) -> list[float]:
    """Lucene's BM25, written down."""
    n, average = len(corpus), sum(map(len, corpus)) / len(corpus)
    scores = []
    for chunk in corpus:
        score = 0.0
        for term in query:
            df, tf = sum(term in other for other in corpus), chunk.count(term)
            idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
            score += idf * tf / (tf + k1 * (1 - b + b * len(chunk) / average))
        scores.append(score)
    return scores


def test_scores_of_three_documents_equal_rank_bm25_and_bm25s() -> None:
    okapi = scorer(THREE, variant="okapi", k1=1.5, b=0.75)(QUERY)
    assert okapi == pytest.approx(BM25Okapi(THREE).get_scores(QUERY), abs=1e-12)
    reference = bm25s.BM25(dtype="float64")
    reference.index(THREE, show_progress=False)
    lucene = scorer(THREE, variant="lucene", k1=1.5, b=0.75)(QUERY)
    known = [term for term in QUERY if any(term in chunk for chunk in THREE)]
    assert lucene == pytest.approx(reference.get_scores(known), abs=1e-12)
    assert lucene.argmax() == 1


@given(CORPORA, WORDS, st.floats(0.0, 3.0), st.floats(0.0, 1.0))
def test_scores_equal_the_references(corpus: list[list[str]], query: list[str], k1: float, b: float) -> None:
    if k1 * (1 - b) > 0:  # else rank-bm25 may divide 0 by 0 where a term is absent
        okapi = BM25Okapi(corpus, k1=k1, b=b).get_scores(query)
        assert scorer(corpus, variant="okapi", k1=k1, b=b)(query) == pytest.approx(okapi, abs=1e-6)
    lucene = scorer(corpus, variant="lucene", k1=k1, b=b)(query)
    if k1 * (1 - b) > 0:
        assert lucene == pytest.approx(by_formula(corpus, query, k1, b), abs=1e-6)
    for variant in ("lucene", "robertson", "atire"):
        reference = bm25s.BM25(method=variant, k1=k1, b=b, dtype="float64")
        reference.index(corpus, show_progress=False)
        known = [term for term in query if any(term in chunk for chunk in corpus)]
        expected = reference.get_scores(known) if known else np.zeros(len(corpus))
        assert scorer(corpus, variant=variant, k1=k1, b=b)(query) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Quick, brown-fox's 3.14 don't", ["the", "quick", "brown", "fox", "s", "3", "14", "don", "t"]),
        ("Straße ＡＢＣ１２３", ["strasse", "abc123"]),
        ("人工智能 2024年", ["人工", "工智", "智能", "2024", "年"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("한국어 문장", ["한국", "국어", "문장"]),
        ("हिन्दी में लिखना", ["हिन्दी", "में", "लिखना"]),
        ("naïve nai\u0308ve", ["naïve", "naïve"]),
        ("日 x_y", ["日", "x_y"]),
        ("…!? \n", []),
        ("", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_letters_of_unspaced_scripts_may_be_terms_by_themselves() -> None:
    assert terms("人工智能 of 東京", pairs=False) == ["人", "工", "智", "能", "of", "東", "京"]


def sentences(n: int) -> list[str]:
    """Sentences of about 50 bytes; number 5 names a capital."""
    rows = [f"Nothing of note happened on day number {i:04d} of it. " for i in range(n)]
    rows[5] = "The capital of France is Paris, as everybody knows. "
    return rows


def test_the_chunk_with_the_answer_is_kept_and_the_rest_is_not() -> None:
    retriever, source = BM25Retriever(BM25Options(k=1, size=60)), prompt("".join(sentences(40)))
    with retriever.open(ToyTokenizer()):
        made = retriever.rewrite(source, ToyTokenizer())
    assert made.prompt.context == sentences(40)[5]
    assert [s for s in made.prompt.segments if s.kind != "context"] == [source.segments[0], source.segments[2]]
    assert made.facts == {"chunks": 40, "kept": 1} and (made.calls, made.read_tokens) == (0, 0)
    assert (made.tokens_before, made.tokens_after) == (len(source.context), len(made.prompt.context))


def test_enough_chunks_give_the_document_back() -> None:
    text = "".join(sentences(40)) + "終わり。" + "x" * 500 + "\n\n\tlast"
    retriever, source = BM25Retriever(BM25Options(k=1000, size=60, overlap=20)), prompt(text)
    assert retriever.rewrite(source, ToyTokenizer()).prompt == source


def test_chunks_come_in_the_order_of_the_document() -> None:
    rows = sentences(40)
    rows[30], rows[2] = "Paris, Paris: the capital of France is Paris. ", "France has a capital, and we say its name. "
    made = BM25Retriever(BM25Options(k=3, size=60)).rewrite(prompt("".join(rows)), ToyTokenizer())
    assert made.prompt.context == rows[2] + "\n\n" + rows[5] + "\n\n" + rows[30]


def test_a_budget_counts_tokens_and_is_never_exceeded() -> None:
    source = prompt("".join(sentences(40)))
    made = BM25Retriever(BM25Options(size=60, budget=Budget(tokens=170))).rewrite(source, ToyTokenizer())
    assert made.facts["kept"] == 3 and made.tokens_after is not None and made.tokens_after <= 170
    quarter = BM25Retriever(BM25Options(size=60, budget=Budget(ratio=0.25))).rewrite(source, ToyTokenizer())
    assert made.tokens_before is not None and quarter.tokens_after is not None
    assert 0.22 * made.tokens_before < quarter.tokens_after <= 0.25 * made.tokens_before


def test_an_empty_context_stays_empty() -> None:
    made = BM25Retriever(BM25Options()).rewrite(prompt(""), ToyTokenizer())
    assert made.prompt == prompt("") and made.facts["chunks"] == 0


def test_a_question_without_terms_keeps_the_first_chunks() -> None:
    made = BM25Retriever(BM25Options(k=2, size=60)).rewrite(prompt("".join(sentences(9)), "?!"), ToyTokenizer())
    assert made.prompt.context == "".join(sentences(9)[:2])
    made = BM25Retriever(BM25Options(k=2, size=5)).rewrite(prompt("... --- !!! ???"), ToyTokenizer())
    assert made.facts["kept"] == 2


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("bm25:k=0", "k=0 is below the least value 1"),
        ("bm25:size=100,budget=99", "budget=99 is smaller than one chunk (size=100)"),
        ("bm25:size=100,overlap=100", "overlap=100 is not below size=100"),
        ("bm25:budget=64MiB", "a retriever keeps tokens"),
        ("bm25:b=2", "above the greatest value 1"),
        ("bm25:variant=plus", "expected one of lucene, okapi"),
    ],
)
def test_bad_options_are_one_clear_message(arm: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arms([arm], installed())
    assert said in str(caught.value)


def test_an_index_serves_all_questions_of_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    retriever, built = BM25Retriever(BM25Options(k=1, size=60)), []
    index = retriever.index
    monkeypatch.setattr(retriever, "index", lambda texts: built.append(len(texts)) or index(texts))
    context = "".join(sentences(40))
    with retriever.open(ToyTokenizer()):
        for i in (7, 20, 33):
            made = retriever.rewrite(prompt(context, f"What happened on day {i:04d}?"), ToyTokenizer())
            assert made.prompt.context == sentences(40)[i]
        assert built == [40]
        retriever.rewrite(prompt(context + "More."), ToyTokenizer())
        assert len(built) == 2
    retriever.rewrite(prompt(context), ToyTokenizer())
    assert len(built) == 3, "closing lets the indexes go"


PROGRAM = """
import random
from loom_accel_bm25.plugin import BM25Options
from loom_accel_bm25.retriever import BM25Retriever
from loom_core.api import segment
from loom_core.api.doubles import ToyTokenizer
from loom_core.api import Prompt
draw = random.Random(5)
words = [f"w{draw.randrange(300)}" for _ in range(4000)]
parts = (segment("context", " ".join(words)), segment("question", " ".join(words[::97])))
made = BM25Retriever(BM25Options(k=7, size=90)).rewrite(Prompt(segments=parts), ToyTokenizer())
print(made.prompt.context)
"""


def test_two_processes_keep_the_same_chunks() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] and len(runs[0]) > 300


def test_equal_scores_keep_the_earlier_chunk() -> None:
    rows = ["Same words here again. "] * 10
    random.Random(1).shuffle(rows)
    made = BM25Retriever(BM25Options(k=2, size=24)).rewrite(prompt("".join(rows), "same words"), ToyTokenizer())
    assert made.kept is not None and [k.start for k in made.kept if k.segment == 1] == [0]
    assert made.prompt.context == "".join(rows[:2])
