"""BERTScore by a small random encoder: the formula by hand, idf, rescaling, the package where installed, no model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from loom_metric_bertscore import metric
from loom_metric_bertscore.metric import Encoder, NoModel, count_idf, opened
from loom_metric_bertscore.plugin import BertScoreOptions

from loom_core.api import Prompt, Sample

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog", "lay", "rug", "it", "was", "warm"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random BERT."""
    path = tmp_path_factory.mktemp("bert")
    (path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]), "utf-8")
    transformers.BertTokenizer(str(path / "vocab.txt"), model_max_length=24).save_pretrained(path)
    config = transformers.BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
    )
    transformers.set_seed(0)
    transformers.BertModel(config).save_pretrained(path)
    return path


def sample(*references: str) -> Sample:
    """A sample with references."""
    return Sample(id="s", task="t", prompt=Prompt(segments=()), references=references)


def by_hand(folder: Path, layer: int, ours: str, theirs: str, weigh: Any) -> tuple[float, float, float]:
    """The formula, token by token in plain Python."""
    encoder = Encoder(str(folder), layer, "cpu")
    ids = [encoder.ids(text) for text in (ours, theirs)]
    a, b = (encoder.vectors(row).tolist() for row in ids)
    dot = [[sum(p * q for p, q in zip(x, y, strict=True)) for y in b] for x in a]
    w = [[weigh(i) for i in row] for row in ids]
    precision = sum(max(row) * v for row, v in zip(dot, w[0], strict=True)) / sum(w[0])
    recall = sum(max(row[j] for row in dot) * v for j, v in enumerate(w[1])) / sum(w[1])
    return precision, recall, 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("layer", [1, 3])
def test_the_formula_by_hand(folder: Path, layer: int) -> None:
    ours, theirs = "a dog lay on the rug", "the cat sat on the mat"
    wanted = by_hand(folder, layer, ours, theirs, lambda i: 0.0 if i in (2, 3) else 1.0)
    options = BertScoreOptions(model=str(folder), layer=layer)
    for make, value in zip((metric.precision, metric.recall, metric.f1), wanted, strict=True):
        scored = make(options).score(ours, sample(theirs))
        assert scored.value == pytest.approx(value, abs=1e-6) and scored.detail["layer"] == layer
    assert metric.f1(options).score(theirs, sample(ours, theirs)).value == pytest.approx(1.0, abs=1e-6)


def test_idf_and_rescaling(folder: Path, tmp_path: Path) -> None:
    lines = ["the cat sat", "the dog lay", "the rug was warm"]
    (tmp_path / "refs.txt").write_text("\n".join(lines), "utf-8")
    (tmp_path / "base.csv").write_text("LAYER,P,R,F\n1,0.1,0.1,0.1\n3,0.2,0.3,0.25\n", "utf-8")
    idf, unseen = count_idf([Encoder(str(folder), 0, "cpu").ids(line) for line in lines])
    assert unseen == pytest.approx(math.log(4)) and idf[5] == 0.0 and idf[6] == pytest.approx(math.log(2))
    wanted = by_hand(folder, 3, "the cat lay", "the dog sat on it", lambda i: idf.get(i, unseen))
    options = BertScoreOptions(model=str(folder), idf=str(tmp_path / "refs.txt"), baseline=str(tmp_path / "base.csv"))
    found = opened(options).scores("the cat lay", "the dog sat on it")
    assert found == pytest.approx([(v - b) / (1 - b) for v, b in zip(wanted, (0.2, 0.3, 0.25), strict=True)], abs=1e-5)


def test_empty_answers_and_missing_models(folder: Path, tmp_path: Path) -> None:
    assert metric.f1(BertScoreOptions(model=str(folder))).score("", sample("the cat")).value == 0.0
    for options, why in (
        (BertScoreOptions(), "--metric-option bertscore.model=FOLDER"),
        (BertScoreOptions(model=str(tmp_path)), "no config"),
        (BertScoreOptions(model=str(folder), layer=9), "has 3 layers, not 9"),
        (BertScoreOptions(model=str(folder), baseline=str(tmp_path / "no.csv")), "cannot be read"),
    ):
        scored = metric.recall(options).score("the cat", sample("the cat"))
        assert scored.value is None and why in str(scored.detail["error"])
    with pytest.raises(NoModel, match="idf"):
        opened(BertScoreOptions(model=str(folder), idf=str(tmp_path / "no.txt")))


@pytest.mark.parametrize("idf", [False, True])
def test_the_package_says_the_same(folder: Path, tmp_path: Path, idf: bool) -> None:
    package = pytest.importorskip("bert_score")
    ours = ["a dog lay on the rug", "it was warm", "the cat"]
    theirs = ["the cat sat on the mat", "the rug was warm", "a dog"]
    wanted = package.score(ours, theirs, model_type=str(folder), num_layers=2, idf=idf)
    (tmp_path / "refs.txt").write_text("\n".join(theirs), "utf-8")
    options = BertScoreOptions(model=str(folder), layer=2, idf=str(tmp_path / "refs.txt") if idf else "")
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert opened(options).scores(a, b) == pytest.approx([float(part[i]) for part in wanted], abs=1e-5)
