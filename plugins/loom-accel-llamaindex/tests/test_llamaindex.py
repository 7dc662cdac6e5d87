"""LlamaIndex's splitter, index and retriever inside loom: exact spans, what is kept, metering, bad input."""

from __future__ import annotations

import socket
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from llama_index.core.node_parser import SentenceSplitter
from loom_accel_llamaindex.plugin import LlamaIndexOptions
from loom_accel_llamaindex.retriever import LlamaIndexRetriever, located

from loom_core.api import LoomError, ModelError, Prompt, segment
from loom_core.api.doubles import ToyTokenizer

SENTENCES = [f"The river keeps its own calendar, and lamp number {i} was quiet that evening. " for i in range(12)]
SENTENCES[7] = "The pass key is 4711, so remember that it is 4711 and nothing else. "


def prompt(context: str, question: str = "What is the pass key?") -> Prompt:
    """A context and a question."""
    return Prompt(segments=(segment("context", context), segment("question", question)))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting to anything fails."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("the test allows no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_the_answer_is_retrieved_without_a_network(no_network: None) -> None:
    retriever = LlamaIndexRetriever(LlamaIndexOptions(k=1, size=90, overlap=0))
    with retriever.open(ToyTokenizer()):
        first = retriever.rewrite(prompt("".join(SENTENCES)), ToyTokenizer())
        second = retriever.rewrite(prompt("".join(SENTENCES), "Which number must I remember?"), ToyTokenizer())
    assert first.prompt.context == second.prompt.context == SENTENCES[7]
    assert (first.calls, second.calls) == (2, 1) and first.read_tokens > second.read_tokens > 0
    assert first.facts == {"chunks": 12, "kept": 1}


def test_chunks_are_those_of_the_splitter_and_all_of_them_give_the_document() -> None:
    text = "  " + "".join(SENTENCES) + "\n\n\n\nA last paragraph.\t\n"
    retriever = LlamaIndexRetriever(LlamaIndexOptions(k=100, size=200, overlap=100))
    pieces = SentenceSplitter(chunk_size=200, chunk_overlap=100, tokenizer=ToyTokenizer().encode).split_text(text)
    made = retriever.chunk(0, text, ToyTokenizer())
    assert [text[row.start : row.end].strip() for row in made] == pieces
    with retriever.open(ToyTokenizer()):
        assert retriever.rewrite(prompt(text), ToyTokenizer()).prompt == prompt(text)


@given(st.text(alphabet="ab. \n", min_size=1, max_size=200).filter(str.strip), st.integers(5, 40))
def test_spans_cover_the_text_in_order(text: str, size: int) -> None:
    pieces = SentenceSplitter(chunk_size=size, chunk_overlap=size // 2, tokenizer=list).split_text(text)
    places = located(text, pieces)
    assert places[0][0] == 0 and places[-1][1] == len(text)
    assert all(start <= end_before for (_, end_before), (start, _) in pairwise(places))
    assert all(piece in text[start:end] for piece, (start, end) in zip(pieces, places, strict=True))


def test_contexts_without_words(no_network: None) -> None:
    retriever = LlamaIndexRetriever(LlamaIndexOptions(k=1, size=50))
    with retriever.open(ToyTokenizer()):
        for text in ("", " \n "):
            assert retriever.rewrite(prompt(text), ToyTokenizer()).prompt == prompt(text)


def test_a_character_larger_than_a_chunk_is_one_clear_message() -> None:
    with pytest.raises(ModelError, match="cannot split this text"):
        LlamaIndexRetriever(LlamaIndexOptions(size=3, overlap=0)).chunk(0, "🙂🙂", ToyTokenizer())


def test_a_missing_encoder_is_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_OFFLINE", "1")
    retriever = LlamaIndexRetriever(LlamaIndexOptions(model=str(tmp_path / "nowhere")))
    with pytest.raises(LoomError) as caught, retriever.open(ToyTokenizer()):
        pass
    assert "the retriever's model cannot be opened" in str(caught.value)
