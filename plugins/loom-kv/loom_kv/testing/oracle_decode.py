"""What recorded rows say beside kept sets and logits: scores, whole-model budgets, evictions while decoding, merges.

Knows the schema of those rows and the policy contract, no particular method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from loom_core.api import Json
from loom_kv.choose import drop
from loom_kv.decode import DecodeStore
from loom_kv.policy import Policy
from loom_kv.testing.host import Batch
from loom_kv.views import Geometry, LayerView, StepView

SCORE, DELTA = 1e-4, 1e-6
"""Relative tolerance of scores and preferences, absolute one of merged values."""
NUDGE = 1e-4
"""By how much listed slots of a tie are raised, so that they win it; scores are compared to this at the closest."""


def watched(policy: Policy | None) -> dict[int, Tensor]:
    """A table that every layer's scores [b, h or 1, N] of the next prompt will be written to."""
    scores: dict[int, Tensor] = {}
    if policy is None:
        return scores
    score = policy.score

    def watching(view: LayerView) -> Tensor:
        scores[view.layer] = score(view)
        return scores[view.layer]

    setattr(policy, "score", watching)  # noqa: B010
    return scores


def nudged(policy: Policy, kept: Sequence[Sequence[Sequence[int]]]) -> Policy:
    """The policy, with the listed slots of each layer and head raised so little that only ties are decided by it."""
    score = policy.score

    def nudging(view: LayerView) -> Tensor:
        scores = score(view).clone()
        for head, places in enumerate(kept[view.layer][: scores.shape[1]]):
            raised = scores[0, head, list(places)]
            scores[0, head, list(places)] = raised + NUDGE * raised.abs()
        return scores

    setattr(policy, "score", nudging)  # noqa: B010
    return policy


def differs_scores(policy: Policy | None, scores: Mapping[int, Tensor], case: Json) -> str | None:
    """Sums of the prompt's attention, and what the policy tells of itself, against the row."""
    for layer, told in enumerate(case.get("scores_after_prefill", ())):
        own = scores[layer][0]
        for what, mine in (
            ("head_sum", own.sum(dim=1)),
            ("head0_first16", own[0, :16]),
            ("head_last8", own[:, -8:]),
        ):
            if what in told and not _near(mine, told[what]):
                return f"layer {layer}: {what} of the scores differs"
    for name, mine in (policy.witness() if policy is not None else {}).items():
        if name in case and not _same(mine, case[name]):
            return f"{name} is {mine}, not {case[name]}"
    return None


def differs_last_scores(batch: Batch, case: Json) -> str | None:
    """Scores of the first slots of head 0 after the last step."""
    for layer, told in enumerate(case.get("score_after_last_step_head0_first8", ())):
        store = batch.session.stores[layer]
        if not isinstance(store, DecodeStore) or not _near(store.scores[0, 0, : len(told)], told):
            return f"layer {layer}: scores after the last step differ"
    return None


def _near(own: Tensor, told: Any) -> bool:
    listed = torch.tensor(told, dtype=torch.float64)
    return bool(torch.allclose(own.double().cpu(), listed, rtol=SCORE, atol=1e-9))


def _same(own: Any, told: Any) -> bool:
    """Equal in shape, whole numbers exactly, others to `SCORE`."""
    if isinstance(told, list):
        return len(own) == len(told) and all(map(_same, own, told))
    if isinstance(told, int) and isinstance(own, int):
        return own == told
    return bool(abs(own - told) <= SCORE * abs(told))


class Drops:
    """Which slots go at each step, of the only row of a batch, against `evicted_at_step` where the row has it."""

    def __init__(self, batch: Batch, case: Json) -> None:
        self.batch, self.told = batch, case.get("evicted_at_step")
        self.before = self._held() if self.told else []
        self.newest = batch.session.n_valid[0]

    def _held(self) -> list[list[set[int]]]:
        stores = self.batch.session.stores
        return [[{p for p in head if p >= 0} for head in store.positions()[0].tolist()] for store in stores]

    def differs(self, step: int) -> str | None:
        """Call it after each step."""
        if not self.told:
            return None
        after = self._held()
        for layer, heads in enumerate(self.told[step]):
            for head, listed in enumerate(heads):
                gone = (self.before[layer][head] | {self.newest + step}) - after[layer][head]
                if gone != set(listed):
                    return f"layer {layer} head {head} drops {sorted(gone)}, not {listed}"
        self.before = after
        return None


def differs_merge(policy: Policy, case: Json) -> str | None:
    """A row without a model: one step's attention [H, T] and values [H, T, d], and what they become."""
    values, attention = torch.tensor(case["v"]), torch.tensor(case["attn"])
    heads, held, dim = values.shape
    geometry = Geometry(
        layers=1,
        query_heads=heads,
        kv_heads=heads,
        key_dim=dim,
        value_dim=dim,
        dtype=values.dtype,
        device=values.device,
    )
    policy.start(geometry)
    keys = torch.zeros(1, heads, held, dim)
    prompt = LayerView(
        layer=0,
        k=keys,
        v=keys,
        n_valid=(held,),
        valid=None,
        queries=None,
        scaling=1.0,
        seeds=(0,),
        geometry=geometry,
    )
    allotment = policy.budget(prompt)
    choice = drop(torch.zeros(1, heads, held), [held], allotment)
    kept = torch.zeros(1, heads, held, dtype=torch.bool)
    if choice is not None:
        kept.scatter_(2, choice.index, True)
    # The row's attention is summed over all queries, except where it belongs to the rule of question answering.
    current = "merge_budget" in case["setting"]
    nothing = torch.zeros_like(attention)
    view = StepView(
        layer=0,
        weights=(attention if current else nothing)[None, :, None],
        scores=(nothing if current else attention)[None],
        held=torch.ones(1, 1, held, dtype=torch.bool),
        newest=(held - 1,),
        n_held=(held,),
        allotment=allotment,
        seeds=(0,),
        geometry=geometry,
    )
    assert policy.merges is not None, f"{policy.name} merges nothing"
    merge = policy.merges.merge(view, kept)
    shares, source = torch.zeros(heads, held), case["evicted_index"]
    if merge is not None:
        shares = merge.shares[0]
        if merge.source[0].tolist() != [source] * heads:
            return f"slot {merge.source[0].tolist()} is merged, not {source}"
    return _differs_merged(case, values, shares[..., None] * values[:, source, None])


def _differs_merged(case: Json, values: Tensor, added: Tensor) -> str | None:
    """added [H, T, d]: what each slot's value takes."""
    first, end = case["receivers"]
    outside = added.abs().sum(dim=2)
    outside[:, first:end] = 0
    if outside.any():
        return f"slots outside {first} to {end} take a share"
    if not torch.allclose(added[:, first:end], added[:, first : first + 1].expand(-1, end - first, -1)):
        return "receivers take unequal shares"
    for name in ("delta_per_head", "delta_first_receiver"):
        if name in case:
            told = torch.tensor(case[name]).view(values.shape[0], -1)
            distance = float((added[:, first] - told).abs().max())
            if not distance <= DELTA:
                return f"{name} differs by {distance:.1e} (at most {DELTA:g})"
    merged = values + added
    recent = case["setting"]["recent"]
    for name, own in (("sum_out", merged.sum(dim=1)), ("sum_recent", merged[:, -recent:].sum(dim=1))):
        if name in case and not torch.allclose(own.flatten(), torch.tensor(case[name]), rtol=1e-5, atol=1e-5):
            return f"{name} differs"
    return None
