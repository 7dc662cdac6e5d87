"""Dense retrieval: vectors against the formula, what is kept, metering, models that are missing or of another kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loom_accel_dense.encoder import Encoder
from loom_accel_dense.plugin import DenseOptions
from loom_accel_dense.retriever import DenseRetriever
from transformers import BertConfig, BertModel, BertTokenizerFast

from loom_core.api import ModelError, Prompt, segment
from loom_core.api.doubles import ToyTokenizer

TEXT = "the a of capital france paris is quiet river keeps its own calendar lamp number pass key what"
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random BERT as transformers saves it, without a sentence-transformers description."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]), "utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def masked_mean(folder: Path, texts: list[str]) -> np.ndarray:
    """Contriever's pooling by its formula, a text at a time: no padding."""
    tokenizer, model = BertTokenizerFast.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        with torch.no_grad():
            rows.append(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy())
    return np.stack(rows)


def test_contriever_is_the_masked_mean_and_a_dot_product(bert: Path) -> None:
    texts = ["the capital of france", "a quiet river keeps its own calendar", "paris"]
    encoder = Encoder(str(bert), "contriever", batch=3, device="cpu")
    assert not encoder.cosine
    found, expected = encoder.encode(texts), masked_mean(bert, texts)
    assert found == pytest.approx(expected, abs=1e-5), "padding changes nothing"
    assert Encoder(str(bert), "contriever", batch=1, device="cpu").encode(texts) == pytest.approx(found, abs=1e-5)
    assert abs(np.linalg.norm(found, axis=1) - 1).max() > 0.1, "vectors are not normalised"
    retriever = DenseRetriever(DenseOptions(model=str(bert), pooling="contriever", device="cpu"))
    scores = retriever.index(texts)("what is the capital")
    assert scores == pytest.approx(expected @ masked_mean(bert, ["what is the capital"])[0], abs=1e-4)


def test_a_plain_folder_compares_by_cosine(bert: Path) -> None:
    encoder = Encoder(str(bert), "own", batch=2, device="cpu")
    assert encoder.cosine
    assert np.linalg.norm(encoder.encode(["the capital", "paris"]), axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)


def sentences() -> list[str]:
    """Sentences of which one answers."""
    rows = [f"The river keeps its own calendar, and lamp number {i} was quiet that evening. " for i in range(12)]
    rows[7] = "The pass key is 4711, so remember that it is 4711 and nothing else. "
    return rows


def prompt(question: str) -> Prompt:
    """A context of these sentences and a question."""
    return Prompt(segments=(segment("context", "".join(sentences())), segment("question", question)))


def test_the_embedded_encoder_finds_the_answer_and_embeds_a_document_once() -> None:
    retriever = DenseRetriever(DenseOptions(k=1, size=90, device="cpu"))
    with retriever.open(ToyTokenizer()):
        first = retriever.rewrite(prompt("What is the pass key?"), ToyTokenizer())
        second = retriever.rewrite(prompt("Which number must I remember?"), ToyTokenizer())
    assert first.prompt.context == second.prompt.context == sentences()[7]
    assert first.facts == {"chunks": 12, "kept": 1, "cut_for_encoder": 0}
    assert (first.calls, second.calls) == (2, 1), "chunks once, and each question"
    assert first.read_tokens > second.read_tokens > 5
    assert second.index_seconds < first.index_seconds


def test_chunks_that_the_encoder_cannot_read_whole_are_noted(bert: Path) -> None:
    long = "capital of france " * 30
    parts = (segment("context", long + "\n\nparis is quiet"), segment("question", "paris"))
    retriever = DenseRetriever(DenseOptions(model=str(bert), size=1000, device="cpu"))
    made = retriever.rewrite(Prompt(segments=parts), ToyTokenizer())
    assert made.facts["cut_for_encoder"] == 1


@pytest.mark.parametrize("pooling", ["own", "contriever"])
def test_a_missing_model_is_one_clear_message(tmp_path: Path, pooling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    for place in (str(tmp_path / "nowhere"), str(tmp_path / "empty")):
        retriever = DenseRetriever(DenseOptions(model=place, pooling=pooling, device="cpu"))
        with pytest.raises(ModelError) as caught, retriever.open(ToyTokenizer()):
            pass
        assert "the retriever's model cannot be opened" in str(caught.value) and place in str(caught.value)


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "BertForSequenceClassification"])
def test_a_model_of_another_kind_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [kind]}), "utf-8")
    with pytest.raises(ModelError) as caught:
        Encoder(str(tmp_path), "own", batch=1, device="cpu")
    assert "not a text encoder" in str(caught.value) and kind in str(caught.value)
