"""Attention times value norm (Guo et al. 2024): score = (Σ over the window of attention) · ‖v‖₁; the largest stay."""

from loom_kv import LayerView, Need, Policy, group_reduce, window_attention
from torch import Tensor


class VATP(Policy):
    """Protects the sinks and the window."""

    name = "vatp"

    @property
    def need(self) -> Need:
        """The window's queries."""
        return Need(window=self.options.window)

    @property
    def first(self) -> int:
        """The sinks."""
        return int(self.options.sinks)

    @property
    def last(self) -> int:
        """The window."""
        return int(self.options.window)

    def score(self, view: LayerView) -> Tensor:
        """[b, h, N], float32; what it says about padding and protected tokens is ignored."""
        attention = window_attention(view).sum(dim=3)
        return group_reduce(attention, "mean") * view.v.float().abs().sum(dim=-1)
