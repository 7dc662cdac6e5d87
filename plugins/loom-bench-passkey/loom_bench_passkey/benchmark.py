"""The passkey benchmark: tasks, and samples by length, depth and key. Knows no model; reads essays through `Data`."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from loom_bench_passkey.filler import Essays, Words, own_words
from loom_bench_passkey.plugin import PasskeyOptions
from loom_bench_passkey.prompts import Hidden, hide
from loom_bench_passkey.scoring import exact, partial
from loom_bench_passkey.settings import ESSAYS_MAX_TOKENS, LOOM, Settings, read_settings
from loom_core.api import (
    BenchmarkBase,
    Data,
    DataSource,
    Generation,
    Json,
    Sample,
    Task,
    Tokenizer,
    UsageError,
    read_pins,
)
from loom_core.api.serving import most_units, n_tokens

UPSTREAM_SEED = 42
ANSWER_TOKENS = {7: 16, 64: 96}
"""Room for an answer of the loom variant: a token for each digit, a space, a full stop and a few words around."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """What every sample of a task shares. words: the filler for a sample, given its own generator. tidy: loom's form
    of the spaces, and keys drawn for each sample."""

    settings: Settings
    words: Callable[[random.Random], Words | Essays]
    tidy: bool


class Passkey(BenchmarkBase):
    """One task, named after the variant and the digits."""

    def __init__(self, options: PasskeyOptions) -> None:
        self._options = options

    @cached_property
    def _pins(self) -> dict[str, DataSource]:
        return read_pins(Path(__file__))

    def sources(self) -> tuple[DataSource, ...]:
        """Every file that any options need."""
        return tuple(self._pins.values())

    def _config(self) -> DataSource:
        name = f"20480words_10x10x3_{self._options.digits}digits.json"
        return self._pins[f"passkey/config/eval_config/paulgraham_passkey/{name}"]

    def _essays(self) -> list[DataSource]:
        return [self._pins[path] for path in sorted(self._pins) if path.startswith("niah/")]

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """The one task that variant and digits select."""
        options = self._options
        essays = options.variant == "essays"
        return (
            Task(
                name=options.variant + ("" if options.digits == 7 else f"_{options.digits}digits"),
                version="2" if essays else "1",
                capability="retrieval",
                metrics=("passkey_exact", "passkey_partial"),
                generation=Generation(max_tokens=ESSAYS_MAX_TOKENS if essays else ANSWER_TOKENS[options.digits]),
                chat="completion",
                chance=0.0,
                sources=(self._config(), *self._essays()) if essays else (),
                licence="settings MIT; essays by Paul Graham" if essays else "Apache-2.0",
            ),
        )

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """Keys at every length and depth; for loom each sample drawn from its own id, for essays keys in a row.

        lengths: model tokens of the whole prompt, BOS included; the filler gets as many words as fit. Empty: the
        lengths in words of the options. Any first n samples are spread over lengths and depths.
        """
        text = self._text(data)
        levels = tuple(dict.fromkeys(lengths)) or self._options.words or text.settings.words
        depths = text.settings.depths(self._options.depths)
        repeats = self._options.repeats
        keys: Sequence[str] = ()
        if not text.tidy:
            keys = upstream_keys(len(levels) * len(depths) * repeats, self._options.digits, self._options.seed)
        for repeat, i, j in spread(len(levels), len(depths), repeats):
            key = keys[(i * len(depths) + j) * repeats + repeat] if keys else None
            yield self._sample(task, text, tokenizer, levels[i], bool(lengths), depths[j], repeat, key)

    def _text(self, data: Data) -> _Text:
        if self._options.variant == "loom":
            return _Text(settings=LOOM, words=lambda draw: Words(own_words(draw)), tidy=True)
        settings = read_settings(data.text(self._config()), self._config(), self._options.digits)
        shared = Essays(data.text(source) for source in self._essays())
        return _Text(settings=settings, words=lambda draw: shared, tidy=False)

    def _sample(
        self,
        task: Task,
        text: _Text,
        tokenizer: Tokenizer | None,
        level: int,
        in_tokens: bool,
        depth: float,
        repeat: int,
        key: str | None,
    ) -> Sample:
        digits = self._options.digits
        point = f"{task.name}-{'t' if in_tokens else 'w'}{level}-d{depth:.{2 if self._options.depths <= 101 else 4}f}"
        name = f"{point}-r{repeat}"
        draw = random.Random(f"passkey {self._options.seed} {name}")
        hides = key or str(draw.randrange(10 ** (digits - 1), 10**digits))
        words = text.words(draw)

        def hidden(n: int) -> Hidden:
            return hide(text.settings, words.first(n), hides, depth, tidy=text.tidy)

        n = _fitting(hidden, tokenizer, level) if in_tokens else level
        found = hidden(n)
        meta: dict[str, Json] = {"words": n, "position": found.position, "repeat": repeat, "digits": digits}
        if in_tokens and tokenizer is None:
            meta["length_estimated"] = True
        return Sample(
            id=name,
            task=task.name,
            prompt=found.prompt,
            references=(hides,),
            level=_tokens(level) if in_tokens else f"{level} words",
            depth=depth,
            evidence=(found.evidence,),
            # Keys of one point of the essays' grid stand in the same text; loom's filler is another each time.
            cluster=None if text.tidy else point,
            meta=meta,
        )

    @staticmethod
    def score_gold(row: Mapping[str, Json]) -> dict[str, list[float]]:
        """The official lists for a gold row: a string answer that is missed appends nothing to the exact matches.

        Several references, or one that is a list itself, are a list of answers, where a miss is a 0.
        """
        prediction, given = row["prediction"] if isinstance(row["prediction"], str) else "", row["references"]
        listed = isinstance(given, list) and (len(given) > 1 or any(isinstance(key, list) for key in given))
        answers = given if isinstance(given, list) else [given]
        references = [str(key) for part in answers for key in (part if isinstance(part, list) else [part])]
        hits = [int(exact(prediction, key)) for key in references]
        return {
            "exact_match": [hit for hit in hits if hit or listed],
            "partial_match": [partial(prediction, key) for key in references],
        }


def upstream_keys(n: int, digits: int, seed: int) -> list[str]:
    """n keys in the order of upstream's loops (lengths, depths, repeats), each digit drawn by itself, zeros included.

    Seed 0 is upstream's own, 42 (lock_seed, make_raw_answer); further seeds count on from there.
    """
    draw = random.Random(UPSTREAM_SEED + seed)
    return ["".join(draw.choice(string.digits) for _ in range(digits)) for _ in range(n)]


def _fitting(hidden: Callable[[int], Hidden], tokenizer: Tokenizer | None, target: int) -> int:
    """How many words of filler the prompt may have to stay within `target` tokens."""

    def count(n: int) -> int:
        return n_tokens(hidden(n).prompt, tokenizer, chat="completion")

    n = most_units(count, target)
    if n < 0:
        raise UsageError(
            "a length is too short for the needle",
            where=f"passkey, --lengths {target}",
            why=f"the prompt without any filler has {count(0)} tokens",
            hint=f"ask for at least {count(0)} tokens",
        )
    return n


def spread(n_levels: int, n_depths: int, repeats: int) -> Iterator[tuple[int, int, int]]:
    """(repeat, level, depth) by index: every pair once a repeat, any first n of them fair over levels and depths.

    Rounds over the levels, each with another depth: a Latin square whose depths come in van der Corput's order.
    """
    order = sorted(range(n_depths), key=lambda i: _mirrored(i, n_depths))
    for repeat in range(repeats):
        for k in range(n_depths):
            for i in range(n_levels):
                yield repeat, i, order[(k + i * max(1, n_depths // n_levels) + repeat) % n_depths]


def _mirrored(i: int, n: int) -> int:
    """The binary digits of i, as many as n - 1 has, in reverse."""
    width = max(1, (n - 1).bit_length())
    return int(f"{i:0{width}b}"[::-1], 2)


def _tokens(n: int) -> str:
    return f"{n // 1024}k" if n % 1024 == 0 else str(n)
