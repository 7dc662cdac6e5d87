"""CAKE (Qin et al. 2025, arXiv:2503.12491): layers share L·B slots by how dispersed and shifting their attention is.

For each layer, with w window queries, P their attention over the N - w past tokens [H, w, N-w], in float32:

    s = mean over w of P + γ · var over w of P          unbiased                                        [H, N-w]
    s = mean over the query heads of a KV head of avgpool(s)                                            [h, N-w]
    entropy = Σ -P log(P + 1e-10)      variance = Σ var over w of P          over all heads, rows and columns
    preference = entropy^(1/τ1) · variance^(1/τ2)                            one number per layer

The budgets of layers 0..l are their preferences' shares of (B - w)·L past tokens, see `allocate`; each layer keeps
its window and the largest s. Original positions; nothing is evicted while decoding.

cascading=true    after each layer the budgets of all layers so far are set anew with the same total, and the layers
                  cut to them: at most L·B slots of them, and one whole layer, exist at a time.
cascading=false   all layers are cut after the last one.

A prompt of at most B + w tokens is left alone. The preferences belong to one prompt: they are forgotten at `start`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from loom_kv import Allotment, Geometry, LayerView, Need, Policy, SharesLayers, group_reduce, pool, window_attention
from torch import Tensor
from torch.nn import functional

from loom_core.api import Json


def allocate(preferences: Sequence[float], total: int, most: int) -> list[int]:
    """Past tokens of each layer, in whole numbers as the authors' code counts them.

    Shares are cut off after the point and at `most`; what lies above `most` goes to the layers below it in equal parts,
    the rest of each division one by one to the first ones. What the cutting left goes to all layers in the same way, so
    a layer may be given more than `most`, which it cannot use.
    """
    whole = sum(preferences)
    layers = len(preferences)
    shares = [total / layers if whole == 0 else preference / whole * total for preference in preferences]
    slots = [min(int(share), most) for share in shares]
    above = sum(max(int(share) - most, 0) for share in shares)
    below = [layer for layer in range(layers) if slots[layer] < most]
    for place, layer in enumerate(below):
        slots[layer] += above // len(below) + (place < above % len(below))
    each, rest = divmod(total - sum(slots), layers)
    return [count + each + (layer < rest) for layer, count in enumerate(slots)]


class CakeKV(Policy):
    """options: `plugin.CakeKVOptions`. Protects the window. preferences[layer][row], of the prompt that is read."""

    name = "cakekv"

    @property
    def need(self) -> Need:
        """The window's queries."""
        return Need(window=self.options.window)

    @property
    def shares_layers(self) -> SharesLayers:
        """One budget for the whole model."""
        return self

    @property
    def shares_prefix(self) -> bool:
        """All that is looked at are the newest queries."""
        return True

    @property
    def last(self) -> int:
        """The window is always kept."""
        window: int = self.options.window
        return window

    def start(self, geometry: Geometry) -> None:
        """Forget everything: a new batch begins."""
        super().start(geometry)
        self.preferences: list[list[float]] = []
        self.n_valid: tuple[int, ...] = ()
        self.told: list[list[float]] = []

    def spared(self, n_valid: int) -> bool:
        """The authors' rule: a prompt within B + w tokens is left alone."""
        return n_valid <= self.slots(n_valid) + self.last

    def budget(self, view: LayerView) -> Allotment:
        """Everything where the prompt is left alone; otherwise `shares` decides."""
        slots = [n if self.spared(n) else self.slots(n) for n in view.n_valid]
        return Allotment(slots=slots, last=self.last)

    def score(self, view: LayerView) -> Tensor:
        """The tokens' scores, [b, h, N]; notes the layer's preference of each row."""
        options = self.options
        attention = window_attention(view)
        window = attention.shape[3]
        past = attention[..., : view.columns - window]
        variance = past.var(dim=3)
        scores = group_reduce(pool(past.mean(dim=3) + options.gamma * variance, options.kernel, "avg"), "mean")
        entropy = (-past * (past + 1e-10).log()).flatten(1).sum(dim=1)
        shift = variance.flatten(1).sum(dim=1)
        preference = entropy ** (1 / options.tau1) * shift ** (1 / options.tau2)
        self.told.append([float(entropy[0]), float(shift[0]), float(preference[0])])
        finite = torch.isfinite(preference)
        # Without a preference there is no budget: the row's scores say so, and the host reports the layer.
        scores = scores.masked_fill(~finite[:, None, None], torch.nan)
        self.preferences.append(preference.masked_fill(~finite, 1.0).tolist())
        self.n_valid = view.n_valid
        return functional.pad(scores, (0, window))

    def shares(self, layer: int) -> list[list[int]]:
        """Slots of the layers so far, [layer][row]."""
        rows = [self._row(row, n, layer) for row, n in enumerate(self.n_valid)]
        return [list(slots) for slots in zip(*rows, strict=True)]

    def _row(self, row: int, n_valid: int, layer: int) -> list[int]:
        layers, window = self.geometry.layers, self.last
        if self.spared(n_valid) or not (self.options.cascading or layer == layers - 1):
            return [n_valid] * (layer + 1)
        preferences = [line[row] for line in self.preferences[: layer + 1]]
        total = (self.slots(n_valid) - window) * layers
        return [slots + window for slots in allocate(preferences, total, n_valid - window)]

    def witness(self) -> Mapping[str, Json]:
        """Entropy, variance and preference of each layer, and past tokens given: after each layer, and at last."""
        layers = len(self.preferences)
        if not layers or self.spared(self.n_valid[0]):
            return {}
        past = self.n_valid[0] - self.last
        stages = [
            [min(slots - self.last, past) for slots in self._row(0, self.n_valid[0], layer)] for layer in range(layers)
        ]
        return {
            "entropy_variance_pref": self.told,
            "past_budget_per_layer": stages[-1],
            "budget_after_each_layer": stages,
        }

    def most_slots(self, n_valid: int) -> int:
        """The budget of all layers; the whole prompt where it is left alone."""
        if self.spared(n_valid):
            return n_valid * self.geometry.layers * self.geometry.kv_heads
        return super().most_slots(n_valid)

    def notes(self, n_valid: int) -> tuple[str, ...]:
        """The fall-back to dense."""
        if not self.spared(n_valid):
            return ()
        slots = self.slots(n_valid)
        return (f"dense: the prompt of {n_valid} tokens is within the budget of {slots} and the window of {self.last}",)
