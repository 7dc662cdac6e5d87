"""The base of methods whose ranking is SnapKV's: the prompt's last queries score the past, and are kept themselves."""

from __future__ import annotations

from torch import Tensor

from loom_kv.policy import Policy
from loom_kv.scores import observed
from loom_kv.views import LayerView, Need


class WindowPolicy(Policy):
    """options: window, kernel, pooling ("avg", "max"), group ("mean", "max") and pool ("before", "after"; the group's
    reduction). Protects the window."""

    @property
    def need(self) -> Need:
        """The window's queries."""
        return Need(window=self.options.window)

    @property
    def last(self) -> int:
        """The window is always kept."""
        window: int = self.options.window
        return window

    def score(self, view: LayerView) -> Tensor:
        """How much the window attends to each past token, pooled: [b, h, N]; zero on the window itself."""
        options = self.options
        return observed(
            view,
            kernel=options.kernel,
            pooling=options.pooling,
            group=options.group,
            pool_first=options.pool == "before",
        )
