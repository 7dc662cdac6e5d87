"""One passkey prompt: filler, needle, filler. The rule of where the needle stands, and how long the filler must be.

Source: henryzhongsc/longctx_bench, eval/passkey_utils: the filler is split into words with the white space behind
them, and the needle stands before word int(words · depth).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loom_bench_passkey.settings import Settings
from loom_core.prompt import segment
from loom_core.types import Evidence, Prompt

FALSE_POSITIONS = 8


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


def most_words(count: Callable[[int], int], target: int) -> int:
    """The largest number of words whose prompt has at most `target` tokens; -1 where not even 0 words fit.

    count: tokens of the prompt with n words, nearly linear in n. It is called few times: by false position between the
    brackets, which for a text of even density needs three to six.
    """
    low, n_low = 0, count(0)
    if n_low > target:
        return -1
    high, n_high = max(1, target - n_low), 0
    while (n_high := count(high)) <= target:
        low, n_low, high = high, n_high, high * 2
    tried = 0
    while high - low > 1 and n_low < target:
        # An uneven text may hold false position back; halving ends it.
        share = (target - n_low) / max(1, n_high - n_low) if tried < FALSE_POSITIONS else 0.5
        middle = min(high - 1, max(low + 1, low + int(share * (high - low))))
        n_middle = count(middle)
        if n_middle <= target:
            low, n_low = middle, n_middle
        else:
            high, n_high = middle, n_middle
        tried += 1
    return low
