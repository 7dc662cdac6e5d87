"""Sixteen bits excuse rounding and nothing else: one slot that depends on the batch is found among forty-eight."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from loom_kv import LayerView, Need, Policy, window_attention
from loom_kv.testing import Subject, toy_model, toy_prompts, u4_batch, u5_chunks
from torch import Tensor

from loom_core.api import Budget


@dataclass(frozen=True)
class Options:
    budget: Budget


class Attended(Policy):
    """What the last query attends to."""

    name = "attended"

    @property
    def need(self) -> Need:
        return Need(window=1)

    def score(self, view: LayerView) -> Tensor:
        return window_attention(view)[:, :, :, 0].mean(dim=2)


class BatchDependent(Attended):
    """In a batch, the fourth token is kept whatever it is worth."""

    def score(self, view: LayerView) -> Tensor:
        scores = super().score(view)
        if len(view.n_valid) > 1:
            scores = scores.masked_fill(view.positions == 3, 1.0)
        return scores


def subject(kind: type[Policy]) -> Subject:
    model, prompts = toy_model("llama", torch.bfloat16), toy_prompts((97, 150, 64), 128)
    return Subject(model, lambda budget: kind(Options(budget)), prompts, Budget(tokens=48))


def test_rounding_is_excused() -> None:
    u4_batch(subject(Attended))
    u5_chunks(subject(Attended))


def test_a_slot_that_depends_on_the_batch_is_not() -> None:
    with pytest.raises(AssertionError, match="U4 row 0"):
        u4_batch(subject(BatchDependent))
