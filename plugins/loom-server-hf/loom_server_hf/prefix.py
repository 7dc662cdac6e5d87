"""Tokens that several prompts begin with: read once, dense, and continued by each of them. Knows ids and tensors.

Every row of a batch that continues a prefix reads the same number of its own last tokens anew, so that no padding
stands between the copy and what follows it; a row whose question is short reads some tokens of the prefix again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two prompts have in common from the left."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle)
    return low


def behind(prompts: Sequence[Sequence[int]], shared: Sequence[int], window: int) -> int:
    """How many of its last tokens each prompt reads itself: all that are not shared, one at least, and the window of
    queries that a method wants to see; less where a prompt is shorter than that."""
    most = max(len(prompt) - common(prompt, shared) for prompt in prompts)
    return min(max(most, window, 1), max(map(len, prompts)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """A prefix that has been read. layers: k and v [1, h, P, d] of each. seconds: what reading took, once.

    peak_bytes: most memory while it was read, or None where that cannot be measured.
    """

    ids: tuple[int, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]
    seconds: float
    peak_bytes: int | None = None

    def behind(self, prompts: Sequence[Sequence[int]], window: int) -> int:
        """See the function `behind`."""
        return behind(prompts, self.ids, window)
