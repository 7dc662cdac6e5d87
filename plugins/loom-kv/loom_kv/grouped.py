"""Quantised keys and values with a window of recent tokens as they came. Knows attention and formats, no method.

The slots of a row lie at the left, oldest first, so that groups of tokens begin at the row's first slot whatever stands
in the batch. What is quantised stays as it is: a token is quantised once, when it leaves the window. Attention decodes
one layer at a time (on a CPU a few rows of it), for the length of one call; a fused kernel would spare that copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from loom_kv.attention import attend_many, attend_one
from loom_kv.codec import HeldView
from loom_kv.quantise import Format, Packed

Rows = slice | Tensor
PORTION_BYTES = 2**20
"""Decoded keys, and as many values, that exist at a time on a CPU, unless one row has more."""


def classes(counts: Sequence[int], device: torch.device) -> Iterator[tuple[int, Rows]]:
    """Each different count with the rows that have it; a slice where all have."""
    for count in sorted(set(counts)):
        rows = [row for row, own in enumerate(counts) if own == count]
        yield count, slice(None) if len(rows) == len(counts) else torch.tensor(rows, device=device)


class Part:
    """The keys or the values of a layer: the first `quantised(n)` of a row's n slots as codes, the others as they are.

    x: [b, h, N, d], slots of each row at the left. counts: slots of each row. window: with groups of channels, the
    newest `window` tokens are kept whole, and one token is quantised a step; with groups of tokens, `window` tokens are
    quantised at once whenever as many are whole (a multiple of the group size).
    """

    def __init__(self, x: Tensor, counts: Sequence[int], form: Format, window: int, room: int) -> None:
        self.form, self.window, self.room = form, window, room
        many = form.along == "tokens"
        self.per_code, self.per_scale = (form.per_byte, form.group) if many else (1, 1)
        most = max(map(self.quantised, counts))
        self.held = form.encode(x.narrow(2, 0, most))
        whole = max(count - self.quantised(count) for count in counts)
        self.recent = x.new_zeros(*x.shape[:2], whole, x.shape[3])
        for count, rows in classes(counts, x.device):
            for slot, place, n in self._whole(count):
                self.recent[rows, :, place : place + n] = x[rows, :, slot : slot + n]

    def quantised(self, count: int) -> int:
        """How many of a row's slots are held as codes."""
        if self.form.along == "tokens":
            return count - count % self.window
        return max(0, count - self.window)

    def append(self, x: Tensor, counts: Sequence[int]) -> None:
        """New tokens x [b, h, n, d] of rows that hold `counts` slots; what leaves the window is quantised."""
        if not self.window:
            self._write(self.form.encode(x), range(len(counts)), counts, x.shape[2])
            return
        for step in range(x.shape[2]):
            self._push(x[:, :, step], [count + step for count in counts])

    def _push(self, x: Tensor, slots: Sequence[int]) -> None:
        """One token of each row, x [b, h, d], into these slots."""
        window, places = self.window, [slot % self.window for slot in slots]
        if max(places) >= self.recent.shape[2]:
            self.recent = _grown(self.recent, min(window, max(places) + self.room))
        if self.form.along == "channels":
            leaving = [row for row, slot in enumerate(slots) if slot >= window]
            old = self.recent[leaving, :, [places[row] for row in leaving]][:, :, None]
            self._write(self.form.encode(old), leaving, [slots[row] - window for row in leaving], 1)
        self.recent[range(len(slots)), :, places] = x
        if self.form.along == "tokens":
            full = [row for row, place in enumerate(places) if place == window - 1]
            if full:
                new = self.form.encode(self.recent[full, :, :window])
                self._write(new, full, [slots[row] + 1 - window for row in full], window)

    def _write(self, new: Packed, rows: Sequence[int], slots: Sequence[int], n: int) -> None:
        """n quantised tokens of each of these rows, from these slots on."""
        if not rows:
            return
        held, end = self.held, max(slots) + n
        if end > held.codes.shape[2] * self.per_code:
            size = end + self.room - self.room % n
            held = Packed(
                _grown(held.codes, size // self.per_code),
                _grown(held.scale, size // self.per_scale),
                _grown(held.least, size // self.per_scale),
            )
            self.held = held
        device = new.codes.device
        row, first = torch.tensor(rows, device=device)[:, None], torch.tensor(slots, device=device)[:, None]
        for own, fresh, per in (
            (held.codes, new.codes, self.per_code),
            (held.scale, new.scale, self.per_scale),
            (held.least, new.least, self.per_scale),
        ):
            place = first // per + torch.arange(n // per, device=device)
            own[row, :, place] = fresh.transpose(1, 2)

    def decoded(self, counts: Sequence[int], new: Tensor | None = None, part: slice = slice(None)) -> Tensor:
        """All slots [b, h, N, d], those of each row at the left and zeros behind, then `new` [b, h, n, d].

        part: only these rows, whose `counts` and `new` are given.
        """
        recent = self.recent[part]
        rows, heads, _, dim = recent.shape
        most, end = max(counts), max(map(self.quantised, counts))
        codes, scales = end // self.per_code, end // self.per_scale
        held = Packed(
            self.held.codes[part, :, :codes], self.held.scale[part, :, :scales], self.held.least[part, :, :scales]
        )
        n = 0 if new is None else new.shape[2]
        out = recent.new_empty(rows, heads, most + n, dim)
        self.form.decode(held, out.narrow(2, 0, end))
        for count, which in classes(counts, out.device):
            for slot, place, whole in self._whole(count):
                out[which, :, slot : slot + whole] = recent[which, :, place : place + whole]
            out[which, :, count:most] = 0
        if new is not None:
            out[:, :, most:] = new
        return out

    def _whole(self, count: int) -> Iterator[tuple[int, int, int]]:
        """Where the tokens lie that are not quantised: (slot, place in `recent`, how many), at most two runs.

        A token's place is its slot modulo the window.
        """
        slot = self.quantised(count)
        while slot < count:
            place = slot % self.window
            n = min(count - slot, self.window - place)
            yield slot, place, n
            slot += n

    def take(self, index: Tensor) -> None:
        """Keep these rows."""
        self.recent = self.recent.index_select(0, index)
        self.held = Packed(*(x.index_select(0, index) for x in (self.held.codes, self.held.scale, self.held.least)))

    def tensors(self) -> list[Tensor]:
        """Everything that is held."""
        return [self.held.codes, self.held.scale, self.held.least, self.recent]


class GroupedStore:
    """One layer as two `Part`s. See `Store`.

    keys, values: their formats. window: tokens that stay whole (see `Part`). view: what the policy left.
    """

    def __init__(self, view: HeldView, keys: Format, values: Format, window: int) -> None:
        self.counts, self.n_valid = view.counts, list(view.n_valid)
        self.base = list(self.counts)
        self.kept = None if view.kept is None else view.left(view.kept)
        self.keys = Part(view.left(view.k), self.counts, keys, window, view.room)
        self.values = Part(view.left(view.v), self.counts, values, window, view.room)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """See `Store.attend`; the new tokens attend to each other as they are, and are appended afterwards."""
        n = k.shape[2]
        parts = [self._attend(part, q[part], k[part], v[part], scaling) for part in self._portions(k)]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        self.keys.append(k, self.counts)
        self.values.append(v, self.counts)
        self.counts = [count + n for count in self.counts]
        return out

    def _portions(self, k: Tensor) -> Iterator[slice]:
        """Rows that are decoded together: on a CPU as many as its cache holds, since decoded numbers are read once."""
        rows, heads, _, dim = k.shape
        size = max(1, PORTION_BYTES // (heads * max(self.counts) * dim * k.element_size()))
        size = size if k.device.type == "cpu" else rows
        for start in range(0, rows, size):
            yield slice(start, start + size)

    def _attend(self, part: slice, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """As `attend`, of these rows, whose q, k and v are given; nothing is appended."""
        counts, n = self.counts[part], k.shape[2]
        keys, values = self.keys.decoded(counts, k, part), self.values.decoded(counts, v, part)
        bias = _bias(counts, keys, n)
        if n == 1:
            return attend_one(q, keys, values, bias, scaling)
        return attend_many(q, keys, values, bias, None, scaling)

    def decoded(self) -> tuple[Tensor, Tensor]:
        """Keys and values as attention sees them now, in the order of `positions`; zeros in empty slots."""
        return self.keys.decoded(self.counts), self.values.decoded(self.counts)

    def positions(self) -> Tensor:
        """See `Store.positions`."""
        device = self.keys.recent.device
        column = torch.arange(max(self.counts), device=device)
        base = torch.tensor(self.base, device=device)[:, None, None]
        ends = torch.tensor(self.n_valid, device=device)[:, None, None]
        places = column - base + ends
        if self.kept is not None:
            width = self.kept.shape[2]
            places = places.expand(-1, self.kept.shape[1], -1).clone()
            places[..., :width] = torch.where(column[:width] < base, self.kept.long(), places[..., :width])
        counts = torch.tensor(self.counts, device=device)[:, None, None]
        return places.masked_fill(column >= counts, -1)

    def tensors(self) -> list[Tensor]:
        """See `Store.tensors`."""
        return [*self.keys.tensors(), *self.values.tensors(), *([] if self.kept is None else [self.kept])]

    def take(self, rows: Sequence[int]) -> None:
        """See `Store.take`; a row may be named more than once."""
        index = torch.tensor(rows, device=self.keys.recent.device)
        self.counts = [self.counts[row] for row in rows]
        self.base = [self.base[row] for row in rows]
        self.n_valid = [self.n_valid[row] for row in rows]
        self.kept = None if self.kept is None else self.kept.index_select(0, index)
        self.keys.take(index)
        self.values.take(index)


def _bias(counts: Sequence[int], keys: Tensor, n: int) -> Tensor | None:
    """Additive [b, 1, 1, N], which hides what lies behind the shorter rows; None where all are equally long."""
    most = max(counts)
    if min(counts) == most:
        return None
    ends = torch.tensor(counts, device=keys.device)[:, None]
    column = torch.arange(most + n, device=keys.device)
    hidden = (column >= ends) & (column < most)
    bias = torch.zeros(hidden.shape, dtype=keys.dtype, device=keys.device)
    return bias.masked_fill_(hidden, torch.finfo(keys.dtype).min)[:, None, None]


def _grown(x: Tensor, size: int) -> Tensor:
    """x [b, h, N, d] with room for `size` in the third dimension, zeros behind."""
    wider = x.new_zeros(*x.shape[:2], size, x.shape[3])
    wider.narrow(2, 0, x.shape[2]).copy_(x)
    return wider
