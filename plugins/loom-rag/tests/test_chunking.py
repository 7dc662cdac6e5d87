"""The chunker: chunks cover their text exactly, end where a reader would end them, and come back as they were."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given, strategies as st
from loom_rag.chunking import GAP, Chunk, chunks, n_tokens, put_together, sentence_ends, token_starts

from loom_core.api.doubles import ToyTokenizer

TEXTS = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="ab .\n", max_size=300),
    st.text(alphabet="人工智能。！東京タワー a.\u3000🙂é\r\n", max_size=200),
)


class Words:
    """A tokenizer whose tokens are words with the white space before them; what else it has is never asked."""

    digest = template_digest = ""
    bos_id: int | None = None
    adds_bos = False

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Words, each with the spaces before it."""
        spans, start = [], 0
        for i, char in enumerate(text):
            if char.isspace() and i and not text[i - 1].isspace():
                spans.append((start, i))
                start = i
        return [0] * (len(spans) + bool(text)), [*spans, *([(start, len(text))] if text else [])]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def cut(text: str, size: int, overlap: int = 0, tokenizer: Any = None) -> list[str]:
    """The texts of the chunks; tokens are bytes unless said otherwise."""
    starts = token_starts(text, tokenizer or ToyTokenizer())
    return [text[c.start : c.end] for c in chunks(text, starts, size=size, overlap=overlap)]


@given(TEXTS, st.integers(1, 60), st.integers(0, 59))
def test_chunks_cover_the_text_and_stay_small(text: str, size: int, overlap: int) -> None:
    overlap = min(overlap, size - 1)
    starts = token_starts(text, ToyTokenizer())
    found = chunks(text, starts, size=size, overlap=overlap)
    assert bool(found) == bool(text)
    reached = 0
    for i, chunk in enumerate(found):
        assert chunk.start <= reached < chunk.end, "no gap, and each chunk brings something new"
        n_bytes = len(text[chunk.start : chunk.end].encode("utf-8", "surrogatepass"))
        assert chunk.n_tokens == n_bytes
        assert n_bytes <= max(size, 4), "only a single character may be larger"
        if i:
            shared = text[chunk.start : reached].encode("utf-8", "surrogatepass")
            assert len(shared) <= overlap
        reached = chunk.end
    assert reached == len(text)
    if not overlap:
        assert "".join(text[c.start : c.end] for c in found) == text


@given(TEXTS, st.integers(1, 60), st.integers(0, 30), st.randoms())
def test_chosen_chunks_keep_every_character_once_and_in_order(
    text: str, size: int, overlap: int, draw: random.Random
) -> None:
    overlap = min(overlap, size - 1)
    found = chunks(text, token_starts(text, ToyTokenizer()), size=size, overlap=overlap, segment=3)
    shuffled = draw.sample(found, len(found))
    whole, kept = put_together({3: text}, shuffled)
    assert whole == {3: text} and len(kept) == bool(text)
    some = shuffled[: len(found) // 2]
    made, kept = put_together({3: text}, some)
    wanted = {i for chunk in some for i in range(chunk.start, chunk.end)}
    assert [i for span in kept for i in range(span.start, span.end)] == sorted(wanted)
    for span in kept:
        assert made[3][span.at : span.at + span.end - span.start] == text[span.start : span.end]
    assert made[3] == GAP.join(text[span.start : span.end] for span in kept)
    assert n_tokens(some) == len("".join(text[i] for i in sorted(wanted)).encode("utf-8", "surrogatepass"))


def test_chunks_end_at_sentences() -> None:
    text = "Dr. Smith met J. Doe at 3.14 p.m. there. He said: “No!” Then he left.\n\nA new paragraph"
    assert [text[a:b] for a, b in zip([0, *sentence_ends(text)], [*sentence_ends(text), len(text)], strict=True)] == [
        "Dr. Smith met J. Doe at 3.14 p.m. there. ",
        "He said: “No!” ",
        "Then he left.\n\n",
        "A new paragraph",
    ]
    assert cut("One two three. Four five six. Seven eight nine. ", 30) == [
        "One two three. Four five six. ",
        "Seven eight nine. ",
    ]


def test_sentences_of_scripts_without_spaces() -> None:
    text = "今日は晴れ。明日は雨！「本当？」と彼は言った。終わり"
    assert cut(text, 40) == ["今日は晴れ。明日は雨！", "「本当？」と彼は言った。", "終わり"]
    assert cut("आज धूप है। कल बारिश होगी। ", 40) == ["आज धूप है। ", "कल बारिश होगी। "]


def test_lines_and_words_where_no_sentence_ends() -> None:
    code = "def one():\n    return 1\n\ndef two():\n    return 2\n"
    assert cut(code, 30) == ["def one():\n    return 1\n\n", "def two():\n    return 2\n"]
    assert cut("alpha beta gamma delta", 12) == ["alpha beta ", "gamma delta"]
    assert cut("人工智能人工智能", 6) == ["人工", "智能", "人工", "智能"]
    assert cut("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]


def test_overlap_begins_at_a_sentence_or_a_word() -> None:
    sentences = "One is here. Two is here. Six is here. Ten is here. "
    assert cut(sentences, 26, 13) == [
        "One is here. Two is here. ",
        "Two is here. Six is here. ",
        "Six is here. Ten is here. ",
    ]
    assert cut("alpha beta gamma delta ", 12, 7)[:2] == ["alpha beta ", " beta gamma "]
    words = " ".join(f"w{i}" for i in range(40))
    found = chunks(words, token_starts(words, Words()), size=10, overlap=3)
    assert [(c.first, c.last) for c in found] == [(0, 10), (7, 17), (14, 24), (21, 31), (28, 38), (35, 40)]


def test_a_character_of_several_tokens_is_never_split() -> None:
    assert cut("🙂🙂🙂", 4) == ["🙂"] * 3
    assert cut("🙂🙂", 1) == ["🙂", "🙂"]
    assert cut("a🙂b", 2, 1) == ["a", "🙂", "b"]


@pytest.mark.parametrize("text", ["", " ", "\n\n\n", "\t \u3000", ".", "。", "\ud800\udfff", "\x00"])
def test_small_and_odd_texts(text: str) -> None:
    assert "".join(cut(text, 3)) == text


def test_without_a_tokenizer_tokens_are_estimated() -> None:
    assert token_starts("abcdefgh ij 人工", None) == [0, 4, 8, 11, 12, 13]
    assert token_starts("", None) == []


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (5, 5), (5, -1)])
def test_impossible_sizes(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="cannot overlap"):
        chunks("text", [0], size=size, overlap=overlap)


@pytest.mark.parametrize(
    "text",
    ["x" * 10_000_000, ". " * 500_000, "." * 1_000_000, " " * 1_000_000, "\n" * 500_000, "A.\n" * 200_000],
    ids=["one line", "full stops", "dots", "spaces", "line breaks", "initials"],
)
def test_long_texts_without_structure_take_linear_time(text: str) -> None:
    """A backtracking pattern would take hours; the bound is loose because nothing here is a measurement."""
    began = time.process_time()
    found = chunks(text, range(0, len(text), 4), size=1000, overlap=50)
    assert found[-1].end == len(text) and all(isinstance(chunk, Chunk) for chunk in found)
    assert time.process_time() - began < 60


def test_a_sentence_is_not_lost_at_the_border_of_a_small_chunk() -> None:
    """A chunk is at least a quarter full, so a short sentence before a long one takes words of it along."""
    text = "No. " + "word " * 40 + "end. Done. "
    assert len(cut(text, 40)[0]) > 10
