"""One passkey prompt: filler, needle, filler, and the rule of where the needle stands.

Source: henryzhongsc/longctx_bench, eval/passkey_utils: the filler is split into words with the white space behind
them, and the needle stands before word int(words · depth).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_bench_passkey.settings import Settings
from loom_core.prompt import segment
from loom_core.types import Evidence, Prompt


@dataclass(frozen=True, slots=True)
class Hidden:
    """A prompt, where its needle is, and before which word."""

    prompt: Prompt
    evidence: Evidence
    position: int


def hide(settings: Settings, words: Sequence[str], key: str, depth: float, *, tidy: bool) -> Hidden:
    """The prompt with the needle for `key` before word int(len(words) · depth).

    tidy: exactly one space around the needle, none at the ends. Else the paper's form: a space before and after the
    needle, added to whatever white space the words bring along.
    """
    position = int(len(words) * depth)
    before, after = "".join(words[:position]), "".join(words[position:])
    needle = settings.needle_with(key)
    if tidy:
        before = before.rstrip() + " " if before else ""
        after = " " + after.strip() if after.strip() else ""
    else:
        before, after = before + " ", " " + after
    parts = (
        segment("instruction", settings.instruction),
        segment("context", before + needle + after),
        segment("question", settings.question),
    )
    return Hidden(
        Prompt(segments=parts), Evidence(segment=1, start=len(before), end=len(before) + len(needle)), position
    )
