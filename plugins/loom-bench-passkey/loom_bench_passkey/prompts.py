"""One passkey prompt: filler, needle, filler, and the rule of where the needle is.

Source: henryzhongsc/longctx_bench, eval/passkey_utils (make_content): the filler is split into words with the white
space behind them, and the needle stands before word int(words · depth); the parts before and after it are stripped, and
the needle and they are joined by single spaces, an empty part at the end included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_bench_passkey.settings import Settings
from loom_core.api import Evidence, Prompt, segment


@dataclass(frozen=True, slots=True)
class Hidden:
    """A prompt, where its needle is, and before which word."""

    prompt: Prompt
    evidence: Evidence
    position: int


def hide(settings: Settings, words: Sequence[str], key: str, depth: float, *, tidy: bool) -> Hidden:
    """The prompt with the needle for `key` before word int(len(words) · depth).

    tidy: exactly one space around the needle, none at the ends. Else the paper's form: before, needle, after and an
    empty text joined by spaces, so that one stands before a needle at the start, and one or two at the end.
    """
    position = int(len(words) * depth)
    before, after = "".join(words[:position]).strip(), "".join(words[position:]).strip()
    needle = settings.needle_with(key)
    if tidy:
        before, after = before and f"{before} ", after and f" {after}"
    else:
        before, after = f"{before} ", f" {after} "
    parts = (
        segment("instruction", settings.instruction),
        segment("context", before + needle + after),
        segment("question", settings.question),
    )
    return Hidden(
        Prompt(segments=parts), Evidence(segment=1, start=len(before), end=len(before) + len(needle)), position
    )
