"""LLMLingua-2: a token classifier's p(keep), averaged over each word; the words of highest probability are kept.

Words are runs of letters, single signs, single letters of scripts without spaces, and line breaks; the space before a
word belongs to it. Knows words and probabilities.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Any

import torch
from loom_rag import UNSPACED, chunks

from loom_accel_llmlingua.base import Choice, Compressor, Piece, Source, Unit, best
from loom_accel_llmlingua.models import open_model, pieces_of
from loom_accel_llmlingua.plugin import LLMLingua2Options
from loom_core.api import ModelError

WORD = re.compile(rf"\n|[^\S\n]*(?:[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s])|[^\S\n]+")
MOST_TOKENS = 512
"""Tokens read at once, special tokens included, as in the paper."""
KEEP = 1
"""The label that means keep."""


class LLMLingua2(Compressor):
    """The prompt augmentation `llmlingua2`."""

    attempts = 6

    def __init__(self, options: LLMLingua2Options) -> None:
        super().__init__(options)
        self._options = options
        self._force = {word.replace("\\n", "\n") for word in options.force}
        self._model: Any = None
        self._tokenizer: Any = None

    def load(self) -> None:
        """Open the classifier. Raises ModelError where it has not two labels."""
        model, self._tokenizer = open_model(self._options.model, self._options.device, classifier=True)
        if model.config.num_labels != 2:
            why = f"it has {model.config.num_labels}; two are needed, drop and keep"
            raise ModelError("the scoring model has other labels", where=f"model={self._options.model}", why=why)
        self._model = model

    def unload(self) -> None:
        """Let go of it."""
        self._model = self._tokenizer = None

    def choice(self, source: Source, question: str) -> Choice:
        """One ranking of all words of all contexts."""
        units = [unit for i in source.texts for unit in self._units(source, i)]

        def choose(quota: int) -> list[Piece]:
            return [units[i].piece for i in best(units, quota)]

        return choose

    def _units(self, source: Source, segment: int) -> list[Unit]:
        text = source.texts[segment]
        spans, keep = self._probabilities(text)
        starts = [start for start, _ in spans]
        units = []
        for match in WORD.finditer(text):
            word = match[0].strip(" \t") or match[0]
            begin = match.end() - len(word)
            # Tokens that reach into the word: the first may begin before it.
            first = max(0, bisect_left(starts, begin + 1) - 1)
            last = max(first + 1, bisect_left(starts, match.end()))
            found = keep[first:last]
            piece = (segment, match.start(), match.end())
            forced = word in self._force or (self._options.digits and any(c.isdigit() for c in word))
            score = sum(found) / len(found) if found else 0.0
            units.append(Unit(piece, source.cost(piece), score, forced))
        return units

    @torch.inference_mode()
    def _probabilities(self, text: str) -> tuple[list[tuple[int, int]], list[float]]:
        """The classifier's tokens as character spans, and p(keep) of each; read in chunks that end at sentences."""
        special = self._tokenizer("")["input_ids"]
        lead, tail = special[: (len(special) + 1) // 2], special[(len(special) + 1) // 2 :]
        limit = int(getattr(self._model.config, "max_position_embeddings", MOST_TOKENS))
        # RoBERTa's positions begin behind the padding id: two of them are never used.
        size = min(MOST_TOKENS, limit - 2) - len(special)
        _, spans = pieces_of(self._tokenizer, text)
        found: list[tuple[int, int]] = []
        keep: list[float] = []
        for chunk in chunks(text, [start for start, _ in spans], size=size):
            ids, own = pieces_of(self._tokenizer, text[chunk.start : chunk.end])
            for first in range(0, len(ids), size):
                part = ids[first : first + size]
                rows = torch.tensor([[*lead, *part, *tail]], device=self._model.device)
                self.read_tokens += rows.shape[1]
                odds = self._model(input_ids=rows).logits[0, len(lead) : len(lead) + len(part)].float()
                keep += odds.softmax(dim=-1)[:, KEEP].tolist()
            found += [(start + chunk.start, end + chunk.start) for start, end in own]
        return found, keep
