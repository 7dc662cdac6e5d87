"""LLMLingua and LongLLMLingua: pieces by perplexity, then tokens, segment by segment. Knows losses; cuts no character.

LLMLingua: pieces of the highest perplexity are kept up to `coarse` times the target (budget controller); of each
segment of these the tokens of highest loss, given what was kept before (iterative compression).
LongLLMLingua: a piece counts by p(question | piece), its rank decides its share, 1 - 2 rank / n times `spread` above
the mean; a token by how much less surprising the question makes it (contrastive perplexity).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from loom_rag import chunks

from loom_accel_llmlingua.base import Choice, Compressor, Piece, Source, Unit, best
from loom_accel_llmlingua.models import open_model, pieces_of
from loom_accel_llmlingua.plugin import LLMLinguaOptions, LongLLMLinguaOptions
from loom_accel_llmlingua.stream import Stream

STATEMENT = " The text above holds what is needed to answer this."
"""Follows the question where its probability is taken, to tie it to the piece (loom's wording)."""
UNKNOWN_WINDOW = 2048


class LLMLingua(Compressor):
    """The prompt augmentation `llmlingua`."""

    def __init__(self, options: LLMLinguaOptions) -> None:
        super().__init__(options)
        self._options = options
        self._model: Any = None
        self._tokenizer: Any = None

    def load(self) -> None:
        """Open the causal model."""
        self._model, self._tokenizer = open_model(self._options.model, self._options.device, classifier=False)

    def unload(self) -> None:
        """Let go of it."""
        self._model = self._tokenizer = None

    def choice(self, source: Source, question: str) -> Choice:
        """Coarse, then fine."""
        pieces = [
            (i, chunk.start, chunk.end)
            for i, text in source.texts.items()
            for chunk in chunks(text, source.starts(i), size=self._options.piece)
        ]
        ranked = self._ranked(source, pieces, question)

        def choose(quota: int) -> list[Piece]:
            chosen, used = list[Piece](), 0
            for piece in ranked:
                if used >= self._options.coarse * quota:
                    break
                chosen.append(piece)
                used += source.cost(piece)
            return self._fine(source, chosen, quota, question)

        return choose

    def _ranked(self, source: Source, pieces: Sequence[Piece], question: str) -> list[Piece]:
        """The pieces, best first: here the most surprising ones."""
        scores = [self._perplexity(source.texts[i][start:end]) for i, start, end in pieces]
        return [pieces[i] for i in sorted(range(len(pieces)), key=lambda i: (-scores[i], i))]

    def _fine(self, source: Source, ranked: Sequence[Piece], quota: int, question: str) -> list[Piece]:
        """Tokens of the chosen pieces, in the order of the document, at one rate for all."""
        total = sum(map(source.cost, ranked))
        rates = dict.fromkeys(ranked, quota / total if total else 0.0)
        return self._tokens(source, sorted(ranked), rates, quota, [self._stream()])

    def _tokens(
        self, source: Source, pieces: Sequence[Piece], rates: dict[Piece, float], quota: int, streams: Sequence[Stream]
    ) -> list[Piece]:
        """The kept tokens of pieces, segment by segment. streams: one, or a plain one and one that knows the question.

        What a segment has left of its share goes to the next one.
        """
        kept, due, used = list[Piece](), 0.0, 0
        for piece in pieces:
            ids, spans = self._spans(source, piece)
            for first in range(0, len(ids), self._options.segment):
                part = slice(first, first + self._options.segment)
                losses = [stream.losses(ids[part]) for stream in streams]
                scores = losses[0] if len(losses) == 1 else losses[0] - losses[1]
                units = [
                    Unit(span, source.cost(span), float(score)) for span, score in zip(spans[part], scores, strict=True)
                ]
                due += rates[piece] * sum(unit.cost for unit in units)
                chosen = best(units, min(quota, round(due)) - used)
                used += sum(units[i].cost for i in chosen)
                kept += [units[i].piece for i in chosen]
                for stream in streams:
                    stream.keep([ids[first + i] for i in chosen])
        self.read_tokens += sum(stream.read for stream in streams)
        return kept

    def _spans(self, source: Source, piece: Piece) -> tuple[list[int], list[Piece]]:
        """The scorer's tokens of a piece, and the characters of each; together they are the piece."""
        segment, start, end = piece
        ids, offsets = pieces_of(self._tokenizer, source.texts[segment][start:end])
        borders = [0, *(max(stop, 0) for _, stop in offsets)]
        for i in range(1, len(borders)):
            borders[i] = max(borders[i], borders[i - 1])
        if ids:
            borders[-1] = end - start
        return ids, [(segment, start + a, start + b) for a, b in pairwise(borders)]

    def _stream(self, head: str = "") -> Stream:
        """A fresh stream, behind a text that always leads."""
        known = self._tokenizer
        begin = next((i for i in (known.bos_token_id, known.cls_token_id, known.eos_token_id) if i is not None), 0)
        window = int(getattr(self._model.config, "max_position_embeddings", None) or UNKNOWN_WINDOW)
        return Stream(self._model, begin, window, pieces_of(known, head)[0] if head else ())

    def _perplexity(self, text: str, of: str = "") -> float:
        """Mean loss of the text's tokens; of: of these instead, which follow the text."""
        stream = self._stream()
        ids = pieces_of(self._tokenizer, text)[0]
        if of:
            stream.keep(ids)
            ids = pieces_of(self._tokenizer, of)[0]
        total, count = 0.0, 0
        for first in range(0, len(ids), self._options.segment):
            part = ids[first : first + self._options.segment]
            losses = stream.losses(part)
            total, count = total + float(losses.sum()), count + len(part)
            stream.keep(part)
        self.read_tokens += stream.read
        return total / count if count else 0.0


class LongLLMLingua(LLMLingua):
    """The prompt augmentation `longllmlingua`."""

    def __init__(self, options: LongLLMLinguaOptions) -> None:
        super().__init__(options)
        self._long = options

    def _ranked(self, source: Source, pieces: Sequence[Piece], question: str) -> list[Piece]:
        """The pieces under which the question is least surprising first."""
        asked = f"\n{question}{STATEMENT}"
        scores = [self._perplexity(source.texts[i][start:end], of=asked) for i, start, end in pieces]
        return [pieces[i] for i in sorted(range(len(pieces)), key=lambda i: (scores[i], i))]

    def _fine(self, source: Source, ranked: Sequence[Piece], quota: int, question: str) -> list[Piece]:
        """Tokens of the chosen pieces, more of the better ones, best piece first where they are reordered."""
        total, n = sum(map(source.cost, ranked)), len(ranked)
        mean = quota / total if total else 0.0
        shares = [mean + (1 - 2 * rank / n) * self._long.spread for rank in range(n)]
        rates = {piece: min(1.0, max(0.0, share)) for piece, share in zip(ranked, shares, strict=True)}
        order = list(ranked) if self._long.reorder else sorted(ranked)
        return self._tokens(source, order, rates, quota, [self._stream(), self._stream(question)])
