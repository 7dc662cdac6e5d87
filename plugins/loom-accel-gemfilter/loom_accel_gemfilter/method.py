"""GemFilter: score(t) = pool over neighbours of Σ over query heads of q_last · k_t, at one early layer; top-k tokens.

Raw products: no softmax and no 1/√d, as the authors do. Knows tensors, no model.
"""

from __future__ import annotations

from loom_kv import Picker, pool
from torch import Tensor

from loom_accel_gemfilter.plugin import GemFilterOptions


class GemFilter(Picker):
    """The method `gemfilter`."""

    options: GemFilterOptions
    name = "gemfilter"

    def layer(self, layers: int) -> int:
        """The option's, else layer 13 of 32 in proportion."""
        return 13 * layers // 32 if self.options.layer is None else self.options.layer

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """Float32 [N] of query [H, d] and keys [h, N, d]. The heads of a group share their keys: their queries add."""
        heads, _, dim = keys.shape
        grouped = query.float().view(heads, -1, dim).sum(dim=1)
        products = (keys.float() @ grouped[:, :, None]).squeeze(-1).sum(dim=0)
        return pool(products[None], self.options.kernel, self.options.pooling)[0]
