"""FlexGen's cache compression (Sheng et al. 2023, arXiv:2303.06865): 4 bits, groups of channels, keys and values alike.

For each group of G = group neighbouring channels of one token

    scale = 15 / (max - min)     code = round((x - min) * scale)     x' = code / scale + min

Two codes lie in a byte, the even channel in its high bits. The prompt attends to whole keys and values; quantisation
follows. A new token attends to itself as it is and is quantised after its step. Nothing stays whole, and nothing is
quantised twice. The scale and the minimum are kept in the model's number format.
"""

from __future__ import annotations

from loom_kv import Codec, Format, Geometry, GroupedStore, HeldView, Store


class FlexGen(Codec):
    """options: `plugin.FlexGenOptions`."""

    name = "flexgen"
    rounds = True

    @property
    def keys(self) -> Format:
        """How keys are quantised."""
        return Format(bits=4, group=self.options.group, along="channels", inverse=True, high_first=True)

    @property
    def values(self) -> Format:
        """How values are quantised: as keys."""
        return self.keys

    @property
    def asked(self) -> str:
        """The bits."""
        return "4 bits"

    def start(self, geometry: Geometry) -> None:
        """Refuses heads whose channels do not divide into groups."""
        super().start(geometry)
        for what, channels in (("key", geometry.key_dim), ("value", geometry.value_dim)):
            if channels % self.options.group:
                raise self.refuse(
                    "group size",
                    f"group={self.options.group} does not divide the {channels} channels of a {what}",
                    "a group that divides them",
                )

    def encode(self, view: HeldView) -> Store:
        """Quantise everything."""
        return GroupedStore(view, self.keys, self.values, 0)

    def bytes_held(self, slots: int) -> int:
        """Codes, scales and minima."""
        shape, itemsize = self.geometry, self.geometry.dtype.itemsize
        held = self.keys.bytes_held(slots, shape.key_dim, itemsize)
        return (held + self.values.bytes_held(slots, shape.value_dim, itemsize)) * shape.kv_heads
