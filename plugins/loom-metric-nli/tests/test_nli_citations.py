"""Citations by the double and by a small random model from a folder; no model, no value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from loom_metric_nli import citations
from loom_metric_nli.citations import Citations, measure, sentences_by_rule
from loom_metric_nli.entailment import LocalModel, NoModel, WordSubset
from loom_metric_nli.plugin import CitationOptions

from loom_core.api import Prompt, Sample

DOCS = ("Paris is the capital of France.", "Rome is old.", "The Seine flows through Paris.", "Berlin is large.")


def found(prediction: str, docs: tuple[str, ...] = DOCS) -> Citations:
    """The citations by the double."""
    return measure(prediction, docs, WordSubset(), sentences_by_rule, 3)


@pytest.mark.parametrize(
    ("prediction", "sentences", "entailed", "needed", "count"),
    [
        ("", 0, 0, 0, 0),
        ("Paris is the capital of France.", 1, 0, 0, 0),
        ("Paris is the capital of France [1].", 1, 1, 1, 1),
        ("Paris is the capital of France [2].", 1, 0, 0, 1),
        ("Paris is the capital of France [1][2].", 1, 1, 1, 2),
        ("Paris is the capital of France [1][9].", 1, 0, 0, 0),
        ("Berlin is large [0].", 1, 1, 1, 1),
        ("Rome is old [2][2].", 1, 1, 2, 2),
        ("Rome is old and Berlin is large [2][4].", 1, 0, 0, 2),
        ("Rome is old Berlin is large [2][4].", 1, 1, 2, 2),
        ("Rome is old Berlin is large [1][2][4][3].", 1, 1, 2, 3),
        ("Rome is old Berlin is large [2][4][1].", 1, 1, 2, 3),
        ("Rome is old Berlin is large [2][2][4].", 1, 1, 1, 3),
        ("Rome is old [2, 3]. Berlin is large [4]!", 2, 1, 1, 2),
    ],
)
def test_the_rule_by_hand(prediction: str, sentences: int, entailed: int, needed: int, count: int) -> None:
    assert found(prediction) == Citations(sentences, entailed, needed, count)


def test_a_comma_list_names_its_first_passage_only() -> None:
    """Of "[2, 3]" the authors read 2, and leave ", 3" in the sentence."""
    assert found("Rome is old [2, 3].").entailed == 0
    assert found("Rome is old [2, 3].", ("x", "Rome is old, 3.")).entailed == 1


@given(st.text(max_size=200), st.lists(st.text(max_size=20), max_size=4))
def test_any_text_gives_shares(prediction: str, docs: list[str]) -> None:
    result = found(prediction, tuple(docs))
    assert 0 <= result.recall <= 1 and 0 <= result.precision <= 1 and 0 <= result.f1 <= 1


def sample() -> Sample:
    """A sample with passages."""
    return Sample(id="s", task="t", prompt=Prompt(segments=()), references=(), documents=DOCS)


def test_passages_are_read_with_their_titles() -> None:
    one = Sample(id="s", task="t", prompt=Prompt(segments=()), references=(), documents=("x", "y"))
    assert citations.premises(one) == ("Passage: x", "Passage: y")
    titled = replace(one, meta={"titles": ["Rome", None]})
    assert citations.premises(titled) == ("Title: Rome\nPassage: x", "Passage: y")
    words = CitationOptions(model="words", sentences="rule")
    assert citations.recall(words).score("Rome x [1].", titled).value == 1.0
    assert citations.recall(words).score("Rome x [1].", one).value == 0.0


def test_a_number_too_long_for_python_is_beyond_every_passage() -> None:
    assert found("Rome is old [" + "2" * 5000 + "].").count == 0


def test_without_a_model_there_is_no_value() -> None:
    scored = citations.recall().score("Rome is old [2].", sample())
    assert scored.value is None and "--metric-option nli.model=FOLDER" in str(scored.detail["error"])


def test_without_punkt_there_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(text: str) -> list[str]:
        raise LookupError("punkt")

    monkeypatch.setattr("nltk.tokenize.sent_tokenize", absent)
    scored = citations.f1(CitationOptions(model="words")).score("Rome is very old [2].", sample())
    assert scored.value is None and "nltk.downloader" in str(scored.detail["error"])


def test_an_empty_answer_is_zero_and_says_so() -> None:
    scored = citations.precision(CitationOptions(model="words", sentences="rule")).score("", sample())
    assert scored.value == 0.0 and "left out" in str(scored.detail["official"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random classifier with three labels, and a tokenizer of words."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("nli")
    known = "passage paris is the capital rome old berlin large of"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *known.split(" ")]
    (path / "vocab.txt").write_text("\n".join(words), "utf-8")
    transformers.BertTokenizer(str(path / "vocab.txt"), model_max_length=32).save_pretrained(path)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
        label2id={"entailment": 0, "neutral": 1, "contradiction": 2},
    )
    transformers.set_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(path)
    return path


def test_a_model_from_a_folder_reads_pairs_in_any_batch(folder: Path) -> None:
    pairs = [("passage rome is old " * n, "rome is old") for n in (1, 3, 40)] + [("berlin", "paris is large")]
    one = LocalModel(str(folder), batch=1, device="cpu").holds(pairs)
    assert one == LocalModel(str(folder), batch=3, device="cpu").holds(pairs)
    scored = citations.recall(CitationOptions(model=str(folder), sentences="rule")).score("Rome is old [2].", sample())
    assert scored.value in (0.0, 1.0)


def test_what_is_no_model_is_told(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(NoModel, match="no config"):
        LocalModel(str(tmp_path), batch=1, device="cpu")
    text = (folder / "config.json").read_text("utf-8")
    (folder / "config.json").write_text(text.replace("entailment", "yes"), "utf-8")
    try:
        with pytest.raises(NoModel, match="no label named entailment"):
            LocalModel(str(folder), batch=1, device="cpu")
    finally:
        (folder / "config.json").write_text(text, "utf-8")
