"""H2O (Zhang et al. 2023, arXiv:2306.14048): heavy hitters, the tokens that all queries so far attend to most.

For each KV head with g query heads, over N prompt tokens and t decoding steps, in float32:

    a_j = Σ over g query heads and all queries i ≥ j of softmax(q_i kᵀ / √d)_j
    keep the R newest tokens and the B - R others with the largest a; original positions.

form=decode   after the prompt, and again after each step's attention, which is added to a first, the new token's own
              included; a dropped token's sum is forgotten. The cache never holds more than B tokens and the new one.
form=oneshot  once, after the prompt (KVCache-Factory's H2O); the cache grows while decoding.

stride=s looks at every s-th query of the prompt, counted from the newest one, and counts it s times: an approximation,
whose cost is 1/s of the exact one's second pass over all queries and keys. Steps of decoding always count exactly.

Query heads are added up within their KV head; the authors' code stops there on models with grouped heads, and on those
without them the sum has one term.
"""

from __future__ import annotations

from loom_kv import LayerView, Need, Policy, StepsDecode, StepView, group_reduce
from torch import Tensor


class H2O(Policy):
    """options: `plugin.H2OOptions`. Protects the recent tokens."""

    name = "h2o"

    @property
    def need(self) -> Need:
        """The column sums."""
        return Need(mass_stride=self.options.stride)

    @property
    def steps(self) -> StepsDecode | None:
        """Each step of decoding, where it evicts there."""
        return self if self.options.form == "decode" else None

    def newest(self, n_valid: int) -> int:
        """The recent tokens."""
        return int(self.options.recent or max(1, self.slots(n_valid) // 2))

    def score(self, view: LayerView) -> Tensor:
        """Column sums of the prompt's attention: [b, h, N]."""
        assert view.mass is not None
        if self.options.form == "oneshot":
            return group_reduce(view.mass, self.options.group)
        return view.mass.sum(dim=2)

    def step(self, view: StepView) -> Tensor:
        """The sums, with this step's attention: [b, h, S]."""
        return view.scores + view.weights.sum(dim=2)
