"""CaM (Zhang et al., ICML 2024): what leaves the cache while decoding is merged into the values of the next tokens.

A host method evicts: host=streamingllm keeps the first `sinks` and the newest B - sinks tokens, host=h2o the tokens
that all queries so far attend to most and the newest `recent` ones (both after a full-attention prefill, then at every
step, at original positions). At a step that evicts, for each KV head, with T tokens held, the new one included, A the
attention they received and R the recent ones:

    form=text   i = T - R - 1, the token that has just left the recent window, and only if it is evicted
                A = attention of all queries so far        p = A_i / mean of A over the m receivers      m = 16
    form=qa     i = T - R + 1, which leaves in two steps (the authors' index), whatever the host evicts
                A = attention of the new token             p = A_i / mean of A over all tokens after i   m = 32
    with probability min(p, 1):  v_j += v_i / m  for the next m tokens j = i + 1 … i + m; fewer if there are fewer,
                                                 still divided by m

Keys are never merged. coin=expected adds min(p, 1)·v_i / m without a draw; coin=never is the host method itself. Query
heads of a KV head are averaged in A. Draws depend on the request's seed, the layer, the token's position and the head
only, so that no batch changes them.
"""

from __future__ import annotations

import torch
from loom_kv import LayerView, Merge, Merges, Need, Policy, StepsDecode, StepView
from torch import Tensor


class CaM(Policy):
    """options: `plugin.CaMOptions`. Protects the recent tokens, and the sinks where the host has them."""

    name = "cam"

    @property
    def need(self) -> Need:
        """The column sums of the prompt where something looks at them."""
        cumulative = self.options.form == "text" or self.options.host == "h2o"
        return Need(mass_stride=self.options.stride if cumulative else 0)

    @property
    def steps(self) -> StepsDecode:
        """Each step of decoding."""
        return self

    @property
    def merges(self) -> Merges:
        """What leaves is merged into what stays."""
        return self

    @property
    def first(self) -> int:
        """The sinks."""
        return int(self.options.sinks) if self.options.host == "streamingllm" else 0

    def newest(self, n_valid: int) -> int:
        """The recent tokens: all but the sinks, or as with H2O."""
        if self.options.host == "streamingllm":
            return max(1, self.slots(n_valid) - self.first)
        return int(self.options.recent or max(1, self.slots(n_valid) // 2))

    def score(self, view: LayerView) -> Tensor:
        """Column sums of the prompt's attention [b, h, N]; nothing where only the step's own attention counts."""
        if view.mass is None:
            return torch.zeros(view.k.shape[0], 1, view.columns, device=view.k.device)
        return view.mass.sum(dim=2)

    def step(self, view: StepView) -> Tensor:
        """The sums, with this step's attention."""
        return view.scores if not self.need.mass_stride else view.scores + view.weights.sum(dim=2)

    def merge(self, view: StepView, kept: Tensor) -> Merge | None:
        """Shares of the leaving token's value for the next ones."""
        options = self.options
        if options.coin == "never":
            return None
        rows, heads, _, total = view.weights.shape
        last = view.allotment.last
        recent = torch.tensor([last] * rows if isinstance(last, int) else list(last), device=kept.device)
        text = options.form == "text"
        place = (total - recent + (-1 if text else 1))[:, None].expand(rows, heads)
        source = place.clamp(0, total - 1)
        dropped = (view.held & ~kept).expand(rows, heads, total)
        leaves = dropped.gather(2, source[..., None])[..., 0] if text else dropped.any(dim=2)
        attention = view.scores + view.weights.sum(dim=2) if text else view.weights.sum(dim=2)
        shares = self.portions(attention, source, leaves & (place == source), view)
        return Merge(source=source, shares=shares)

    def portions(self, attention: Tensor, source: Tensor, leaves: Tensor, view: StepView) -> Tensor:
        """Shares [b, h, S]. attention: A [b, h, S]. source: i [b, h]. leaves: bool [b, h], where it is merged."""
        options, m = self.options, self.options.merged_into
        column = torch.arange(attention.shape[2], device=attention.device)
        after = (column > source[..., None]) & view.held
        receivers = after & (column <= source[..., None] + m)
        compared = receivers if options.form == "text" else after
        mean = (attention * compared).sum(dim=2) / compared.sum(dim=2)
        chance = (attention.gather(2, source[..., None])[..., 0] / mean).nan_to_num(0.0, posinf=1.0).clamp(0, 1)
        if options.coin == "always":
            chance = torch.ones_like(chance)
        elif options.coin == "draw":
            chance = (self._draws(view, chance.shape[1]).to(chance.device) < chance).to(chance.dtype)
        shares: Tensor = receivers * (chance * leaves / m)[..., None]
        return shares

    def _draws(self, view: StepView, heads: int) -> Tensor:
        """One number in [0, 1) for each row and head."""
        rows = []
        for seed, position in zip(view.seeds, view.newest, strict=True):
            mixed = ((seed * 1_000_003 + view.layer) * 1_000_003 + position) % 2**63
            rows.append(torch.rand(heads, generator=torch.Generator().manual_seed(mixed)))
        return torch.stack(rows)
