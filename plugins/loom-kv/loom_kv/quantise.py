"""Group quantisation: a few bits per element, one scale and one least value per group. Pure functions of tensors.

A group is `group` neighbours along one axis: tokens of a channel, or channels of a token. With `levels` = 2^bits - 1
and a group's least and largest element:

    step     scale = (largest - least) / levels     code = round((x - least) / scale)     x' = code · scale + least
    inverse  scale = levels / (largest - least)     code = round((x - least) · scale)     x' = code / scale + least

Codes are cut to 0..levels and rounded half to even. Scale and least value are kept in the number format of x, and codes
are computed with the scale as kept. A constant group is exact. Codes are packed into bytes along the axis of groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}
"""Number formats by their bytes."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What is held of x [..., N, d]. codes: uint8, shortened along the axis of the groups by the codes in a byte.
    scale, least: shortened by the group size."""

    codes: Tensor
    scale: Tensor
    least: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How x [..., N, d] is quantised. along: the axis of a group. inverse: see the module. high_first: the first of the
    elements in a byte takes its high bits. Raises ValueError for a group that does not fill whole bytes."""

    bits: int
    group: int
    along: Literal["tokens", "channels"]
    inverse: bool = False
    high_first: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (1, 2, 4, 8):
            raise ValueError(f"bits={self.bits} is not one of 1, 2, 4, 8")
        if self.group < 1 or self.group % self.per_byte:
            raise ValueError(f"group={self.group} does not fill bytes of {self.per_byte} codes of {self.bits} bits")

    @property
    def per_byte(self) -> int:
        """Codes in a byte."""
        return 8 // self.bits

    @property
    def axis(self) -> int:
        """The dimension of x that groups lie along."""
        return -2 if self.along == "tokens" else -1

    def encode(self, x: Tensor) -> Packed:
        """x [..., N, d] in this format; the group size divides x's length along the axis."""
        axis, levels = self.axis, 2**self.bits - 1
        groups = split(x, axis, self.group)
        least, largest = groups.amin(axis, keepdim=True), groups.amax(axis, keepdim=True)
        spread = largest.float() - least.float()
        scale = (levels / spread if self.inverse else spread / levels).to(x.dtype)
        codes = groups.float() - least.float()
        codes = codes.mul_(scale.float()) if self.inverse else codes.div_(scale.float())
        # Zero times infinity, or by zero: the group is constant, and any code gives its value.
        codes = codes.nan_to_num_(nan=0.0).clamp_(0, levels).round_().to(torch.uint8)
        return Packed(self._pack(codes.flatten(axis - 1, axis)), scale.squeeze(axis), least.squeeze(axis))

    def decode(self, packed: Packed, out: Tensor | None = None) -> Tensor:
        """The x' of the module's formulas [..., N, d], in the number format of the scale, rounded once.

        out: where to write them, if given; its dimensions N and d may be part of a larger tensor's.
        """
        groups = split(self._spread(packed), self.axis, self.group)
        target = None if out is None else out.unflatten(self.axis, (-1, self.group))  # type: ignore[no-untyped-call]
        scale, least = packed.scale.unsqueeze(self.axis), packed.least.unsqueeze(self.axis)
        if self.along == "channels" and groups.dtype == torch.float32:
            # Two passes, since torch's fused one is slow where a whole group shares its scale.
            groups = groups.div_(scale) if self.inverse else groups.mul_(scale)
            values = torch.add(groups, least, out=target)
        elif self.inverse:
            values = torch.addcdiv(least, groups, scale, out=target)
        else:
            values = torch.addcmul(least, groups, scale, out=target)
        return values.flatten(self.axis - 1, self.axis) if out is None else out

    def _spread(self, packed: Packed) -> Tensor:
        """The codes [..., N, d] as numbers in the format of the scale; a fresh tensor."""
        dtype = packed.scale.dtype
        word = WORDS.get(self.per_byte * dtype.itemsize)
        if self.along == "tokens" or word is None:
            return self.codes(packed.codes).to(dtype)
        # All codes of a byte lie side by side: one look-up gives their numbers as one word.
        every = torch.arange(256, dtype=torch.uint8, device=packed.codes.device)
        table = self.codes(every[:, None]).to(dtype).view(word)[:, 0]
        words = table.index_select(0, packed.codes.flatten().int())
        *rest, width = packed.codes.shape
        return words.view(dtype).view(*rest, width * self.per_byte)

    def _shifts(self, device: torch.device) -> Tensor:
        shifts = torch.arange(0, 8, self.bits, dtype=torch.uint8, device=device)
        shifts = shifts.flip(0) if self.high_first else shifts
        return shifts[:, None] if self.along == "tokens" else shifts

    def _pack(self, codes: Tensor) -> Tensor:
        parts = split(codes, self.axis, self.per_byte) << self._shifts(codes.device)
        return parts.sum(self.axis, dtype=torch.uint8)

    def codes(self, packed: Tensor) -> Tensor:
        """The codes [..., N, d] in packed bytes, one in each uint8."""
        parts: Tensor = (packed.unsqueeze(self.axis) >> self._shifts(packed.device)) & (2**self.bits - 1)
        codes: Tensor = parts.flatten(self.axis - 1, self.axis)
        return codes

    def bytes_held(self, tokens: int, channels: int, itemsize: int) -> int:
        """Bytes that `tokens` x `channels` elements take: codes, scales and least values."""
        return tokens * channels * self.bits // 8 + 2 * itemsize * (tokens * channels // self.group)


def split(x: Tensor, axis: int, size: int) -> Tensor:
    """x with its dimension `axis` (-1 or -2) cut into runs of `size`, which become a dimension behind it."""
    shape = list(x.shape)
    shape[axis] //= size
    return x.reshape(*shape[: len(shape) + axis + 1], size, *shape[len(shape) + axis + 1 :])
