"""A `LayerView` made by hand, for tests of a method's formulas without a model. Knows the KV contract only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loom_kv.choose import choose
from loom_kv.policy import Policy
from loom_kv.roles import allotted
from loom_kv.views import Geometry, LayerView


def toy_view(
    queries: Tensor,
    keys: Tensor,
    values: Tensor | None = None,
    n_valid: Sequence[int] | None = None,
    *,
    layer: int = 0,
    layers: int = 1,
) -> LayerView:
    """The view of one layer. queries [b, H, w, d], keys and values [b, h, N, d] (values default to the keys).

    n_valid: tokens of each row, the last ones; None = no row is padded.
    """
    rows, heads, columns, dim = keys.shape
    values = keys if values is None else values
    valid = None
    if n_valid is not None:
        valid = (torch.arange(columns) >= torch.tensor([[columns - n] for n in n_valid]))[:, None]
    geometry = Geometry(
        layers=layers,
        query_heads=queries.shape[1],
        kv_heads=heads,
        key_dim=dim,
        value_dim=values.shape[3],
        dtype=keys.dtype,
        device=keys.device,
    )
    return LayerView(
        layer=layer,
        k=keys,
        v=values,
        n_valid=tuple(n_valid) if n_valid is not None else (columns,) * rows,
        valid=valid,
        queries=queries,
        scaling=dim**-0.5,
        seeds=(0,) * rows,
        geometry=geometry,
    )


def toy_kept(policy: Policy, view: LayerView) -> list[list[set[int]]]:
    """The columns [row][head] that a policy keeps of a layer, as the host would ask it; heads that rank as one are one.

    The policy is started for the view's geometry, unless it already is.
    """
    if getattr(policy, "geometry", None) is not view.geometry:
        policy.start(view.geometry)
    scores = policy.score(view).float()
    choice = choose(scores, view.n_valid, allotted(policy.shares_heads, view, scores, policy.budget(view)))
    if choice is None:
        columns = view.columns
        return [[set(range(columns - n, columns))] * view.k.shape[1] for n in view.n_valid]
    rows, heads, width = choice.index.shape
    missing = torch.zeros(rows, heads) if choice.missing is None else choice.missing.expand(rows, heads)
    held = torch.arange(width) >= missing[..., None]
    index = choice.index.masked_fill(~held, -1).tolist()
    return [[{slot for slot in head if slot >= 0} for head in row] for row in index]
