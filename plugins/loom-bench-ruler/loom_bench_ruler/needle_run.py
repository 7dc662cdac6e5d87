"""The authors' needle generator, draw by draw. Source: NVIDIA/RULER, scripts/data/synthetic/niah.py."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from loom_bench_ruler.needles import DEPTHS
from loom_bench_ruler.runs import Made, RedrawError, Search, order
from loom_bench_ruler.sentences import Haystack
from loom_bench_ruler.settings import Needles, Wording
from loom_core.api import Prompt, segment

SHORT = 4096
"""Below this length the authors take smaller steps, and lists repeat their words less often."""
ESSAY_STEP, LINE_STEP, SHORT_STEP = 500, 25, 5
LOWEST, HIGHEST = 10**6, 10**7 - 1
"""Values of seven digits."""
UUID_BITS = 128


def needle_search(settings: Needles, level: int, room: int, max_tokens: int, where: str) -> Search:
    """Words of essays in steps of 500, lines in steps of 25, or of 5 below 4,096."""
    step = ESSAY_STEP if settings.haystack == "essay" else SHORT_STEP if level < SHORT else LINE_STEP
    return Search(room=room, step=step, first=step, extra=max_tokens, where=where)


@dataclass(frozen=True, slots=True)
class NeedleRun:
    """One run of a needle task. words: what keys are drawn from, in the authors' order. noise: a line of noise.
    source: the word list, named in every sample that used it."""

    settings: Needles
    wording: Wording
    seed: int
    stream: Random
    words: Sequence[str]
    essays: Haystack | None = None
    noise: str = ""
    source: str = ""

    def make(self, n: int, index: int) -> Made:
        """Keys with their values, then places, then queries: the order of the authors' draws."""
        settings, draw = self.settings, self.stream
        key, value = self._maker(settings.keys), self._maker(settings.values)
        pairs: list[tuple[int, str]] = []
        keys: list[str] = []
        for i in range(settings.n_keys):
            keys.append(key())
            pairs += [(i, value()) for _ in range(settings.n_values)]
        sentence = self.wording.needle.replace("{type_needle_v}", settings.values)
        texts = [sentence.format(key=keys[i], value=text) for i, text in pairs]
        turn = order(self.seed, len(texts))
        context, spans = self._context(n, [texts[i] for i in turn], sentence, key, value)
        asked = draw.sample(range(settings.n_keys), settings.n_queries)
        return self._made(n, keys, pairs, asked, context, {j: spans[place] for place, j in enumerate(turn)})

    def _made(
        self,
        n: int,
        keys: Sequence[str],
        pairs: Sequence[tuple[int, str]],
        asked: Sequence[int],
        context: str,
        spans: dict[int, tuple[int, int]],
    ) -> Made:
        settings = self.settings
        queries = [keys[i] for i in asked]
        several = settings.n_queries * settings.n_values > 1
        wording = self.wording.several() if several else self.wording
        blanks = {
            "query": f"{', '.join(queries[:-1])}, and {queries[-1]}" if len(queries) > 1 else queries[0],
            "type_needle_v": settings.values if several else settings.values[:-1],
        }
        held = [j for i in asked for j, (owner, _) in enumerate(pairs) if owner == i]
        references = tuple(pairs[j][1] for j in held)
        return Made(
            prompt=Prompt(
                segments=(
                    segment("instruction", wording.before.format(**blanks)),
                    segment("context", context),
                    segment("question", wording.after.format(**blanks)),
                    segment("prefill", wording.prefix.format(**blanks)),
                )
            ),
            references=references,
            units=n,
            spans=tuple(spans[j] for j in held),
            oracle=", ".join(references),
            meta={"keys": queries} | ({"words": self.source} if settings.keys == "words" else {}),
        )

    def _maker(self, kind: str) -> Callable[[], str]:
        draw, words = self.stream, self.words
        if kind == "words":
            return lambda: draw.choice(words)
        if kind == "numbers":
            return lambda: str(draw.randint(LOWEST, HIGHEST))
        return lambda: str(uuid.UUID(int=draw.getrandbits(UUID_BITS), version=4))

    def _context(
        self, n: int, needles: Sequence[str], sentence: str, key: Callable[[], str], value: Callable[[], str]
    ) -> tuple[str, list[tuple[int, int]]]:
        """The context, and where each needle is in it."""
        if self.essays is not None:
            return _joined(self._among_sentences(n, needles, self.essays), " ", needles)
        if self.settings.haystack == "noise":
            lines = [self.noise] * n
        else:
            lines = [sentence.format(key=key(), value=value()) for _ in range(n)]
        if n < len(needles):
            raise RedrawError
        for place, needle in zip(
            sorted(self.stream.sample(range(n), len(needles)), reverse=True), needles, strict=True
        ):
            lines.insert(place, needle)
        return _joined([(line, False) for line in lines], "\n", needles)

    def _among_sentences(self, n: int, needles: Sequence[str], essays: Haystack) -> list[tuple[str, bool]]:
        """Runs of sentences with needles between, each run one text, empty ones too: the authors join them all."""
        pieces, n_sentences = essays.take(n), essays.n_sentences(n)
        if len(needles) > len(DEPTHS):
            raise RedrawError
        depths = self.stream.sample(DEPTHS, len(needles))
        places = [0, *sorted(int(n_sentences * (depth / 100)) for depth in depths), n_sentences]
        parts: list[tuple[str, bool]] = []
        for i in range(1, len(places)):
            start, end = essays.start(places[i - 1], n), essays.start(places[i], n)
            parts.append((" ".join(pieces[start:end]), False))
            if i <= len(needles):
                parts.append((needles[i - 1], True))
        return parts


def _joined(parts: Sequence[tuple[str, bool]], joint: str, needles: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """The parts joined, and where each needle is: those marked, in their order, or the first part equal to it."""
    at = 0
    marked: list[tuple[int, int]] = []
    first: dict[str, tuple[int, int]] = {}
    for text, is_needle in parts:
        if is_needle:
            marked.append((at, at + len(text)))
        else:
            first.setdefault(text, (at, at + len(text)))
        at += len(text) + len(joint)
    return joint.join(text for text, _ in parts), marked or [first[needle] for needle in needles]
