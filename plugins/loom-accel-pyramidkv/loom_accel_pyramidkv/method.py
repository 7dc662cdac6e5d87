"""PyramidKV (Cai et al. 2024, arXiv:2406.02069): SnapKV's scores, budgets that shrink from layer to layer.

With mean budget B, window w, L layers and N prompt tokens, P = B - w past tokens on average:

    low  = P / β                       high = 2P - low
    high ≥ N - w:  high = N - w        low  = 2P - high
    step = (high - low) / (L - 1)      layer l keeps high - l·step

rule=official   whole-number divisions; the w window tokens come on top of that; N < 2P: every layer keeps B. Whole
                steps round down, so the layers together keep up to L(L-1)/2 slots more than L·B.
rule=kvpress    P = B in the formula, fractions, rounded at the end (half to even), the window inside; where not
                N ≥ high ≥ low ≥ w, every layer keeps B.

Which tokens: SnapKV's ranking (window attention summed over w queries, pooled, reduced over the query heads of a KV
head), and the window itself. Original positions; nothing is evicted while decoding.
"""

from __future__ import annotations

from loom_kv import Allotment, LayerView, WindowPolicy


def official(layer: int, layers: int, n: int, budget: int, window: int, beta: int) -> int:
    """Slots of a layer by the authors' whole-number arithmetic, window included."""
    past = budget - window
    if n < budget:
        return n
    if n < 2 * past or layers == 1:
        return budget
    low = past // beta
    high = 2 * past - low
    if high >= n - window:
        high = n - window
        low = 2 * past - high
    return high - layer * ((high - low) // (layers - 1)) + window


def kvpress(layer: int, layers: int, n: int, budget: float, window: int, beta: float) -> int:
    """Slots of a layer by kvpress's floating-point arithmetic, window included. budget: slots, not rounded."""
    # kvpress adds the window to the budget and takes it off again; the sum is kept for its rounding.
    past = (window + budget) - window
    low = past / beta
    high = past * 2 - low
    if high >= n - window:
        high = n - window
        low = past * 2 - high
    if layers == 1 or not n >= high >= low >= window:
        return round(budget)
    return round(high - layer * ((high - low) / (layers - 1)))


class PyramidKV(WindowPolicy):
    """options: `plugin.PyramidKVOptions`. Protects the window."""

    name = "pyramidkv"

    def layer_slots(self, layer: int, n_valid: int) -> int:
        """Slots per KV head that a layer keeps of a prompt of `n_valid` tokens."""
        options, layers, slots = self.options, self.geometry.layers, self.slots(n_valid)
        if slots >= n_valid:
            return n_valid
        if options.rule == "official":
            return min(n_valid, official(layer, layers, n_valid, slots, options.window, int(options.beta)))
        ratio = self.asked.ratio
        exact = float(slots) if ratio is None else n_valid * ratio
        return min(n_valid, kvpress(layer, layers, n_valid, exact, options.window, options.beta))

    def budget(self, view: LayerView) -> Allotment:
        """This layer's share."""
        return Allotment(slots=[self.layer_slots(view.layer, n) for n in view.n_valid], last=self.last)

    def most_slots(self, n_valid: int) -> int:
        """The sum of the layers' shares, which rule=official rounds up."""
        layers = range(self.geometry.layers)
        return sum(self.layer_slots(layer, n_valid) for layer in layers) * self.geometry.kv_heads
