"""Does a premise entail a claim? A local model of transformers, or a double by rule. Imports torch only when asked.

Where no model is given or it cannot be opened, `NoModel` says so; nothing else takes its place.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

WORDS = "words"
_WORD = re.compile(r"\w+")


class NoModel(Exception):
    """There is no entailment model, and why."""


class Entailment(Protocol):
    """Answers for many pairs at once."""

    def holds(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """For each (premise, claim), whether the premise entails the claim."""


class WordSubset:
    """A double: a claim holds where it has words and all of them, in lower case, are among the premise's."""

    def holds(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """See the class."""
        return [bool(words := _words(claim)) and words <= _words(premise) for premise, claim in pairs]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


class LocalModel:
    """A sequence classifier with an entailment label; the most probable label decides, as the authors' pipeline does.

    A pair longer than the model's window loses the end of its premise, never the claim.
    """

    def __init__(self, folder: str, batch: int, device: str) -> None:
        try:
            import torch
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError as error:
            raise NoModel(f"{error}; pip install 'loom-metric-nli[model]'") from error
        if not (Path(folder) / "config.json").is_file():
            raise NoModel(f"{folder} is not a model folder: it has no config.json")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model: Any = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
            self._model = self._model.eval().to(device)
        except (OSError, ValueError, RuntimeError) as error:
            raise NoModel(f"{folder} cannot be opened: {error}") from error
        self._torch: Any = torch
        self._batch, self._device = batch, device
        labels = {int(i): str(name).lower() for i, name in self._model.config.id2label.items()}
        named = [i for i, name in labels.items() if name.startswith("entail")]
        if len(named) != 1:
            raise NoModel(f"{folder} has no label named entailment, but {', '.join(labels.values())}")
        self._label = named[0]
        positions = getattr(self._model.config, "max_position_embeddings", None) or 512
        self._window = min(int(self._tokenizer.model_max_length), int(positions))

    def holds(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Batches of pairs of like length; the same answer in any order."""
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        found = [False] * len(pairs)
        for start in range(0, len(order), self._batch):
            part = order[start : start + self._batch]
            encoded = self._tokenizer(
                [pairs[i][0] for i in part],
                [pairs[i][1] for i in part],
                truncation="only_first",
                max_length=self._window,
                padding=True,
                return_tensors="pt",
            ).to(self._device)
            with self._torch.inference_mode():
                chosen = self._model(**encoded).logits.argmax(-1).tolist()
            for i, label in zip(part, chosen, strict=True):
                found[i] = label == self._label
        return found


@functools.lru_cache(maxsize=2)
def opened(model: str, batch: int, device: str) -> Entailment:
    """The model of that name, opened once. Raises NoModel."""
    if not model:
        raise NoModel("no entailment model: --metric-option nli.model=FOLDER")
    return WordSubset() if model == WORDS else LocalModel(model, batch, device)
