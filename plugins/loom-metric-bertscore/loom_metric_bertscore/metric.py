"""BERTScore: each token is matched with the most similar token of the other side. Imports torch only when asked.

Source: Zhang et al. 2020, arXiv 1904.09675, with x reference and y candidate tokens, unit vectors of one layer:
R = Σ idf(x) max_y x·y / Σ idf(x), P likewise over y, F1 = 2PR / (P + R); rescaled (s - b) / (1 - b). As in the
authors' package bert-score, the special tokens at both ends weigh nothing but may be matched;
idf(w) = log((N + 1) / (df(w) + 1)).
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loom_core.api import Sample, Scored
from loom_metric_bertscore.plugin import BertScoreOptions

Part = Literal["precision", "recall", "f1"]
PARTS: tuple[Part, ...] = ("precision", "recall", "f1")
SPACED = frozenset(("roberta", "gpt2"))
"""Model types whose words are spelt with the space before them; the package adds one in front."""


class NoModel(Exception):
    """BERTScore cannot be had, and why."""


class Encoder:
    """Texts to unit vectors of one layer."""

    def __init__(self, folder: str, layer: int, device: str) -> None:
        if not folder:
            raise NoModel("no encoder: --metric-option bertscore.model=FOLDER")
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise NoModel(f"{error}; pip install 'loom-metric-bertscore[model]'") from error
        if not (Path(folder) / "config.json").is_file():
            raise NoModel(f"{folder} is not a model folder: it has no config.json")
        try:
            self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval().to(device)
            spaced = {"add_prefix_space": True} if self._model.config.model_type in SPACED else {}
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, **spaced)
        except (OSError, ValueError, RuntimeError) as error:
            raise NoModel(f"{folder} cannot be opened: {error}") from error
        layers = int(self._model.config.num_hidden_layers)
        if layer > layers:
            raise NoModel(f"{folder} has {layers} layers, not {layer}")
        self.layer, self._torch, self._device = layer or layers, torch, device
        positions = int(getattr(self._model.config, "max_position_embeddings", 512) or 512)
        self._window = min(int(self.tokenizer.model_max_length), positions)

    def ids(self, text: str) -> list[int]:
        """The token ids of a text with the special tokens at both ends, cut to the model's window."""
        found: list[int] = self.tokenizer(text.strip(), truncation=True, max_length=self._window)["input_ids"]
        return found

    def vectors(self, ids: Sequence[int]) -> Any:
        """Unit vectors, (tokens, width)."""
        with self._torch.inference_mode():
            given = self._torch.tensor([ids], device=self._device)
            hidden = self._model(input_ids=given, output_hidden_states=True).hidden_states[self.layer][0]
            return self._torch.nn.functional.normalize(hidden.float(), dim=-1)


@dataclass(frozen=True, slots=True)
class Weights:
    """What a token weighs: one, or its idf. Tokens that no reference holds weigh most."""

    idf: Mapping[int, float] | None
    unseen: float
    special: frozenset[int]

    def of(self, ids: Sequence[int]) -> list[float]:
        """The weight of each token."""
        if self.idf is not None:
            return [self.idf.get(i, self.unseen) for i in ids]
        return [0.0 if i in self.special else 1.0 for i in ids]


def count_idf(documents: Sequence[Sequence[int]]) -> tuple[dict[int, float], float]:
    """idf of each token, and that of a token in no document."""
    seen = Counter(i for ids in documents for i in set(ids))
    n = len(documents)
    return {i: math.log((n + 1) / (found + 1)) for i, found in seen.items()}, math.log(n + 1)


@dataclass(frozen=True, slots=True)
class Scorer:
    """An encoder with its weights and its baseline."""

    encoder: Encoder
    weights: Weights
    baseline: tuple[float, float, float]

    def scores(self, candidate: str, reference: str) -> tuple[float, float, float]:
        """Precision, recall, F1; 0 before rescaling where a side has no token of its own."""
        ours, theirs = self.encoder.ids(candidate), self.encoder.ids(reference)
        precision = recall = 0.0
        if not all(set(ids) - self.weights.special for ids in (ours, theirs)):
            return self._rescaled(0.0, 0.0)
        similar = self.encoder.vectors(ours) @ self.encoder.vectors(theirs).T
        precision = _weighted(similar.max(dim=1).values.tolist(), self.weights.of(ours))
        recall = _weighted(similar.max(dim=0).values.tolist(), self.weights.of(theirs))
        return self._rescaled(precision, recall)

    def _rescaled(self, precision: float, recall: float) -> tuple[float, float, float]:
        total = precision + recall
        values = (precision, recall, 2 * precision * recall / total if total else 0.0)
        a, b, c = ((value - base) / (1 - base) for value, base in zip(values, self.baseline, strict=True))
        return a, b, c


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    total = sum(weights)
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / total if total else 0.0


def read_baseline(path: Path, layer: int) -> tuple[float, float, float]:
    """The baseline of a layer from LAYER,P,R,F lines (or tab-separated). Raises NoModel."""
    try:
        for line in path.read_text("utf-8").splitlines()[1:]:
            cells = line.replace("\t", ",").split(",")
            if cells and cells[0].strip() == str(layer):
                precision, recall, f1 = map(float, cells[1:4])
                return precision, recall, f1
    except (OSError, ValueError) as error:
        raise NoModel(f"the baseline {path} cannot be read: {error}") from error
    raise NoModel(f"the baseline {path} has no line for layer {layer}")


@functools.lru_cache(maxsize=2)
def opened(options: BertScoreOptions) -> Scorer:
    """The scorer of these options, made once. Raises NoModel."""
    encoder = Encoder(options.model, options.layer, options.device)
    special = frozenset(i for i in (encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id) if i is not None)
    special |= {i for i in (encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id) if i is not None}
    weights = Weights(None, 0.0, special)
    if options.idf:
        try:
            lines = [line for line in Path(options.idf).read_text("utf-8").splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise NoModel(f"the references for idf cannot be read: {error}") from error
        weights = Weights(*count_idf([encoder.ids(line) for line in lines]), special)
    baseline = read_baseline(Path(options.baseline), encoder.layer) if options.baseline else (0.0, 0.0, 0.0)
    return Scorer(encoder, weights, baseline)


@functools.lru_cache(maxsize=64)
def _scored(candidate: str, reference: str, options: BertScoreOptions) -> tuple[float, float, float]:
    """The three parts, which three metrics share."""
    return opened(options).scores(candidate, reference)


@dataclass(frozen=True)
class BertScore:
    """One part of BERTScore, the best over the references. meta: nothing."""

    part: Part
    options: BertScoreOptions

    def score(self, prediction: str, sample: Sample) -> Scored:
        """The value; None where there is no model or no reference."""
        if not sample.references:
            return Scored(value=None, detail={"error": "the sample has no reference"})
        try:
            layer = opened(self.options).encoder.layer
            found = [_scored(prediction, str(reference), self.options) for reference in sample.references]
        except NoModel as error:
            return Scored(value=None, detail={"error": str(error)})
        value = max(one[PARTS.index(self.part)] for one in found)
        detail = {"model": Path(self.options.model).name, "layer": layer, "idf": bool(self.options.idf)}
        return Scored(value=value, detail={**detail, "rescaled": bool(self.options.baseline)})


def precision(options: BertScoreOptions | None = None) -> BertScore:
    """BERTScore's precision."""
    return BertScore("precision", options or BertScoreOptions())


def recall(options: BertScoreOptions | None = None) -> BertScore:
    """BERTScore's recall."""
    return BertScore("recall", options or BertScoreOptions())


def f1(options: BertScoreOptions | None = None) -> BertScore:
    """BERTScore's F1."""
    return BertScore("f1", options or BertScoreOptions())
