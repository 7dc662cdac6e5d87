"""What a passkey prompt is made of: wording, lengths and depths, of loom's own variant or read from the paper's config.

Source of loom's wording: the needle test of the appendix of arXiv:2407.01527 (KV cache compression benchmark), which
follows Mohtashami & Jaggi 2023. Source of the essays' wording and numbers: the pinned config of
henryzhongsc/longctx_bench, read on use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from loom_core.api import DataError, DataSource, Json

T = TypeVar("T", int, float, str)
LOOM_WORDS = (256, 512, 1024)
ESSAYS_MAX_TOKENS = 256
"""The config's max_new_tokens. A task is described before any file is read; `read_settings` checks that they agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The wording around the filler, and the grid. placeholder: what the key replaces in `needle`."""

    instruction: str
    needle: str
    placeholder: str
    question: str
    words: tuple[int, ...]
    depth_min: float = 0.0
    depth_max: float = 1.0

    def needle_with(self, key: str) -> str:
        """The needle that hides `key`."""
        return self.needle.replace(self.placeholder, key)

    def depths(self, n: int) -> tuple[float, ...]:
        """n depths from the least to the greatest; one alone is the least."""
        return spaced(self.depth_min, self.depth_max, n)


LOOM = Settings(
    instruction=(
        "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
        "I will quiz you about the important information there.\n"
    ),
    needle="The pass key is <KEY>. Remember it. <KEY> is the pass key.",
    placeholder="<KEY>",
    question="\nWhat is the pass key? The pass key is",
    words=LOOM_WORDS,
)


def spaced(low: float, high: float, n: int) -> tuple[float, ...]:
    """n evenly spaced numbers, both ends included (upstream: get_intermediate_values_within_min_max)."""
    if n == 1:
        return (low,)
    return (low, *(i * (high - low) / (n - 1) + low for i in range(1, n - 1)), high)


def read_settings(text: str, source: DataSource, digits: int) -> Settings:
    """The essays' settings from the paper's config JSON. Raises DataError naming what is missing or unlike.

    Lengths are int-truncated: 512, 2730, …, 20480 words.
    """
    try:
        values: Mapping[str, Json] = json.loads(text)["eval_params"]
        need = _reader(values)
        lengths = spaced(
            need("background_len_min", int), need("background_len_max", int), need("n_background_lens", int)
        )
        settings = Settings(
            instruction=need("instruction", str),
            needle=need("retrieval_target_template", str),
            placeholder=need("retrieval_target_placeholder", str),
            question=need("retrieval_question", str),
            words=tuple(int(n) for n in lengths),
            depth_min=float(need("depth_min", int)),
            depth_max=float(need("depth_max", int)),
        )
        expected: dict[str, Json] = {
            "max_new_tokens": ESSAYS_MAX_TOKENS,
            "retrieval_target_len": digits,
            "retrieval_target_style": "int",
            "retrieval_target_wrapper": "naked",
            "background_filling_style": "ordered_repetition",
            "instruction_position": "prefix",
        }
        unlike = {name: values.get(name) for name, value in expected.items() if values.get(name) != value}
        if unlike or settings.placeholder not in settings.needle:
            raise ValueError(f"this plugin knows another setting: {unlike or settings.needle!r}")
    except (ValueError, TypeError, KeyError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            "the passkey config cannot be used", where=source.pin, why=why, hint="loom data verify passkey"
        ) from error
    return settings


def _reader(values: Mapping[str, Json]) -> Callable[[str, type[T]], T]:
    def need(name: str, kind: type[T]) -> T:
        value = values[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}, not of type {kind.__name__}")
        return value

    return need
