"""ThinK (Xu et al. 2024, arXiv:2407.21018): key channels that hardly take part in attention are dropped.

For each KV head with d channels, w window queries, g query heads and K kept tokens, in float32:

    weight[c] = mean over the window and the group of q[c]^2  *  mean over the kept tokens of k[c]^2

The int(ratio * d) channels of least weight are dropped from all keys but the newest `recent` ones and those that are
decoded later; a query's product with the older keys takes the channels that are left. Values stay whole.

The authors' code works on keys repeated for every query head; with one weight per KV head the group's queries are
averaged, as NVIDIA/kvpress does, which zeroes channels instead of dropping them, of the newest tokens too (recent=0).
After SnapKV the authors take the last `recent` slots in the order in which its top-k leaves them, best score first and
the window last: order=rank. While `recent` is not above SnapKV's window, both orders are one.
"""

from __future__ import annotations

import dataclasses

import torch
from loom_kv import ChannelPrunedStore, Codec, HeldView, Need, Store
from torch import Tensor


class ThinK(Codec):
    """options: `plugin.ThinKOptions`."""

    name = "think"

    @property
    def need(self) -> Need:
        """The window's queries."""
        return Need(window=self.options.window)

    @property
    def ranked(self) -> bool:
        """The order of a top-k needs its scores."""
        rank: bool = self.options.order == "rank"
        return rank

    @property
    def asked(self) -> str:
        """The share."""
        return f"{self.options.ratio:g} of key channels dropped"

    @property
    def kept_channels(self) -> int:
        """Channels of a key that are left."""
        channels = self.geometry.key_dim
        dropped = int(channels * self.options.ratio)
        return channels - dropped

    def weights(self, view: HeldView) -> Tensor:
        """The formula of the module: float32 [b, h, d]."""
        assert view.queries is not None
        rows, heads, _, dim = view.k.shape
        window = view.queries.shape[2]
        counts = torch.tensor(view.counts, device=view.k.device)[:, None, None]
        # A prompt that is shorter than the window stands behind padding, which weighs nothing.
        seen = torch.tensor([min(n, window) for n in view.n_valid], device=view.k.device)[:, None]
        real = torch.arange(window, device=view.k.device) >= window - seen
        queries = view.queries.float().square() * real[:, None, :, None]
        queries = (queries.sum(2) / seen[..., None]).view(rows, heads, -1, dim).mean(2)
        keys = view.k.float().square()
        empty = view.empty()
        if empty is not None:
            keys.masked_fill_(empty[..., None], 0.0)
        return queries * (keys.sum(2) / counts)

    def encode(self, view: HeldView) -> Store:
        """Drop the channels of least weight."""
        weights = self.weights(view)
        channels = weights.topk(self.kept_channels, dim=-1).indices.sort(dim=-1).values
        order = None
        if view.scores is not None:
            ranks = view.scores.masked_fill(view.scores == torch.inf, -torch.inf)
            empty = view.empty()
            if empty is not None:
                ranks = ranks.masked_fill(empty, torch.inf)
            order = ranks.argsort(dim=-1, descending=True, stable=True).expand(-1, view.k.shape[1], -1)
        return ChannelPrunedStore(view, channels, self.options.recent, order)

    def bytes_held(self, slots: int) -> int:
        """Older keys with their channels' numbers, 2 bytes each; newest keys and all values whole."""
        shape, itemsize = self.geometry, self.geometry.dtype.itemsize
        recent = min(slots, self.options.recent)
        keys = (slots - recent) * self.kept_channels + recent * shape.key_dim
        held: int = itemsize * (keys + slots * shape.value_dim) + 2 * self.kept_channels
        return held * shape.kv_heads

    def notes(self, slots: int) -> tuple[str, ...]:
        """Says where every key keeps all channels."""
        if self.kept_channels == self.geometry.key_dim:
            return (f"dense: a share of {self.options.ratio:g} is no whole channel",)
        recent = self.options.recent
        return (f"dense: all {slots} tokens are among the newest {recent}",) if slots <= recent else ()

    def identity(self) -> ThinK:
        """Nothing dropped."""
        return ThinK(dataclasses.replace(self.options, ratio=0.0))
