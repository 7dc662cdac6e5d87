"""A memory budget as users write it: tokens, a share of the prompt, or bytes. Knows numbers, no cache."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a method may keep: exactly one of tokens, ratio or bytes, per KV head where it has a meaning.

    ratio: share of the valid prompt tokens kept, floored, sinks and window included; "4x" is ratio 1/4.
    bytes_: bytes of keys and values over all layers and KV heads, per prompt.
    """

    tokens: int | None = None
    ratio: float | None = None
    bytes_: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.tokens, self.ratio, self.bytes_) if value is not None]
        if len(given) != 1:
            raise ValueError("a budget is exactly one of tokens, ratio or bytes")
        if given[0] <= 0 or (self.ratio is not None and self.ratio > 1):
            raise ValueError("a budget is a positive number of tokens or bytes, or a ratio in (0, 1]")

    def __str__(self) -> str:
        if self.tokens is not None:
            return str(self.tokens)
        if self.bytes_ is not None:
            return f"{self.bytes_}B"
        assert self.ratio is not None
        factor = round(1 / self.ratio)
        # Fixed point with every digit, so that reading it back gives this very ratio.
        return f"{factor}x" if 1 / factor == self.ratio else format(Decimal(repr(self.ratio)), "f")

    def slots(self, n_valid: int, bytes_per_token: float = 0.0) -> int:
        """Slots per KV head for a prompt of `n_valid` tokens; `bytes_per_token` counts all layers and heads."""
        if self.tokens is not None:
            return self.tokens
        if self.ratio is not None:
            # 1e-9 guards against 0.1 * 30 = 2.9999…: the floor is of the exact product.
            return max(1, int(self.ratio * n_valid + 1e-9))
        assert self.bytes_ is not None
        if bytes_per_token <= 0:
            raise ValueError("a budget in bytes needs the bytes one token takes")
        return max(1, int(self.bytes_ / bytes_per_token))
