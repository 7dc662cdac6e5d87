"""KIVI (Liu et al. 2024, arXiv:2402.02750): keys quantised per channel, values per token, recent tokens whole.

With G = group, R = window, N tokens in the cache, and levels = 2^bits - 1, for each group of G elements

    scale = (max - min) / levels     code = round((x - min) / scale)     x' = code * scale + min

    keys     G neighbouring tokens of one channel; the newest N mod R are whole, and R are quantised together
    values   G neighbouring channels of one token; the newest R are whole, and one is quantised at each step

The prompt attends to whole keys and values; quantisation follows. Keys are quantised after their rotation. A token is
quantised once and never again. The scale and the minimum are kept in the model's number format.
"""

from __future__ import annotations

import dataclasses

from loom_kv import Codec, Format, Geometry, GroupedStore, HeldView, Store

WHOLE = 2**40
"""Tokens of a window that nothing leaves."""


class KIVI(Codec):
    """options: `plugin.KIVIOptions`."""

    name = "kivi"
    rounds = True

    @property
    def keys(self) -> Format:
        """How keys are quantised."""
        return Format(bits=int(self.options.bits), group=self.options.group, along="tokens")

    @property
    def values(self) -> Format:
        """How values are quantised."""
        return Format(bits=int(self.options.bits), group=self.options.group, along="channels")

    @property
    def asked(self) -> str:
        """The bits."""
        return f"{self.options.bits} bits"

    def start(self, geometry: Geometry) -> None:
        """Refuses values whose channels do not divide into groups."""
        super().start(geometry)
        if geometry.value_dim % self.options.group:
            raise self.refuse(
                "group size",
                f"group={self.options.group} does not divide the {geometry.value_dim} channels of a value",
                "a group that divides them, and the window",
            )

    def encode(self, view: HeldView) -> Store:
        """Quantise all that is outside the window."""
        return GroupedStore(view, self.keys, self.values, self.options.window)

    def bytes_held(self, slots: int) -> int:
        """Codes, scales and minima of the quantised tokens, and the whole ones."""
        shape, window, itemsize = self.geometry, self.options.window, self.geometry.dtype.itemsize
        whole_keys, whole_values = slots % window, min(slots, window)
        held: int = self.keys.bytes_held(slots - whole_keys, shape.key_dim, itemsize)
        held += self.values.bytes_held(slots - whole_values, shape.value_dim, itemsize)
        held += (whole_keys * shape.key_dim + whole_values * shape.value_dim) * itemsize
        return held * shape.kv_heads

    def notes(self, slots: int) -> tuple[str, ...]:
        """Says where no key and no value is quantised."""
        window = self.options.window
        return (f"dense: {slots} tokens fit the window of {window}",) if slots < window else ()

    def identity(self) -> KIVI:
        """A window that nothing leaves."""
        return KIVI(dataclasses.replace(self.options, window=self.options.group * WHOLE))
