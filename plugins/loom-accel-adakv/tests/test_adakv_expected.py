"""Expected attention against its formula in float64, from queries taken out of the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from loom_accel_adakv.expected import ExpectedAttention
from loom_accel_adakv.method import AdaKV
from loom_accel_adakv.plugin import AdaKVOptions
from loom_kv import LayerView, QueryChunk
from loom_kv.testing import Subject, toy_model, toy_prompts
from torch import Tensor

from loom_core.api import Budget

PROMPTS = toy_prompts((60, 41), 128)
FUTURE, SINKS, EPSILON = 20, 4, 0.01


class Spy(AdaKV):
    """Keeps what was seen and scored."""

    def start(self, geometry: Any) -> None:
        super().start(geometry)
        self.seen: dict[int, tuple[LayerView, Tensor]] = {}

    def score(self, view: LayerView) -> Tensor:
        scores = super().score(view)
        self.seen[view.layer] = view, scores
        return scores


def spy(**values: Any) -> Spy:
    options = AdaKVOptions(
        budget=Budget(tokens=16), base="expected-attention", future=FUTURE, sinks=SINKS, epsilon=EPSILON, **values
    )
    return Spy(options)


def run(model: Any, prompts: Sequence[tuple[int, ...]], policy: Spy, chunk: int = 4096) -> Spy:
    Subject(model, lambda budget: policy, prompts, Budget(tokens=16)).run(prompts, policy, chunk)
    return policy


@torch.inference_mode()
def raw_queries(model: Any, prompt: tuple[int, ...]) -> list[Tensor]:
    """What each layer's q_proj (and q_norm) gives, [H, N, d]: rotation comes after it."""
    taken: list[Tensor] = []
    handles = []
    for layer in model.model.layers:
        attention = layer.self_attn
        module = getattr(attention, "q_norm", attention.q_proj)
        handles.append(module.register_forward_hook(lambda m, i, out: taken.append(out.detach())))
    model(torch.tensor([prompt]))
    for handle in handles:
        handle.remove()
    return [out.view(len(prompt), -1, 16).transpose(0, 1).double() for out in taken]


def rotation(model: Any, position: int) -> Tensor:
    """R(position) [d, d], built from the inverse frequencies: (x, y) of each pair turned by its angle."""
    angles = position * model.model.rotary_emb.inv_freq.double()
    half = len(angles)
    matrix = torch.diag(torch.cat([angles.cos(), angles.cos()]))
    for i in range(half):
        matrix[i, half + i], matrix[half + i, i] = -angles[i].sin(), angles[i].sin()
    return matrix


def reference(model: Any, queries: Tensor, k: Tensor, v: Tensor, covariance: bool) -> Tensor:
    """The formula in the module's header for one row, of all but the sinks. queries [H, N, d], k, v [h, N, d]."""
    heads, n, dim = k.shape
    group = queries.shape[0] // heads
    mean_rotation = torch.stack([rotation(model, n + step) for step in range(FUTURE)]).mean(0)
    scores = torch.zeros(heads, n - SINKS, dtype=torch.float64)
    for head in range(queries.shape[0]):
        own = queries[head, SINKS:]
        mean = own.mean(0)
        sigma = (own - mean).T @ (own - mean) / len(own)
        mean, sigma = mean_rotation @ mean, mean_rotation @ sigma @ mean_rotation.T
        keys = k[head // group, SINKS:].double()
        logits = keys @ mean / dim**0.5
        if covariance:
            logits += torch.einsum("ni,ij,nj->n", keys, sigma, keys) / (2 * dim)
        scores[head // group] += logits.softmax(0) / group
    norms: Tensor = torch.linalg.vector_norm(v[:, SINKS:].double(), dim=-1)
    return (scores + EPSILON) * norms


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mha"])
@pytest.mark.parametrize("covariance", [True, False])
def test_scores_equal_the_formula(kind: str, covariance: bool) -> None:
    model = toy_model(kind)
    policy = run(model, PROMPTS, spy(covariance=covariance), chunk=23)
    for row, prompt in enumerate(PROMPTS):
        n = len(prompt)
        for layer, queries in enumerate(raw_queries(model, prompt)):
            view, scores = policy.seen[layer]
            expected = reference(model, queries, view.k[row, :, -n:], view.v[row, :, -n:], covariance)
            assert torch.allclose(scores[row, :, SINKS - n :].double(), expected, rtol=2e-3, atol=1e-5)
            assert not scores[row, :, : SINKS - n].any()


def test_without_value_norm_the_scores_are_a_distribution() -> None:
    options = AdaKVOptions(budget=Budget(tokens=16), base="expected-attention", value_norm=False)
    policy = run(toy_model("llama"), PROMPTS, Spy(options))
    assert len(policy.seen) == 3
    assert all(torch.allclose(scores.sum(-1), torch.ones(())) for _, scores in policy.seen.values())


def test_moments_do_not_depend_on_chunks_or_padding() -> None:
    torch.manual_seed(0)
    queries = torch.randn(2, 4, 50, 8) + 3
    positions = torch.stack([torch.arange(50), torch.arange(50) - 17])
    results = []
    for chunk in (50, 13, 1):
        state = ExpectedAttention(sinks=SINKS, future=1, covariance=True, value_norm=True, epsilon=0.0)
        for start in range(0, 50, chunk):
            part = slice(start, start + chunk)
            state.observe(QueryChunk(layer=0, queries=queries[:, :, part], positions=positions[:, part]))
        results.append(state.moments[0])
    for row, first in enumerate((SINKS, SINKS + 17)):
        own = queries[row, :, first:].double()
        centred = own - own.mean(1, keepdim=True)
        for moments in results:
            assert int(moments.count[row, 0]) == 50 - first
            assert torch.allclose(moments.mean[row].double(), own.mean(1), atol=1e-5)
            assert moments.squares is not None
            assert torch.allclose(moments.squares[row].double(), centred.mT @ centred, atol=1e-3)
