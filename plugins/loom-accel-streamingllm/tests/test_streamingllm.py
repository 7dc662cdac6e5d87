"""StreamingLLM against its definition: kept positions, and a token-by-token cache written once more by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from loom_accel_streamingllm.method import StreamingLLM
from loom_accel_streamingllm.oracle import options as oracle_options
from loom_accel_streamingllm.plugin import StreamingLLMOptions, loom_augmentations
from loom_kv.testing import STEPS, Subject, fixed_tokens, toy_model, toy_prompts
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from loom_core.api import Budget, UsageError, build

PROMPTS = toy_prompts((50, 33, 12), 128)
SINKS, BUDGET = 3, 16


def subject(**options: Any) -> Subject:
    """The method on a toy Llama."""
    values: dict[str, Any] = {"sinks": SINKS, **options}

    def make(budget: Budget) -> StreamingLLM:
        return StreamingLLM(StreamingLLMOptions(budget=budget, **values))

    return Subject(toy_model("llama"), make, PROMPTS, Budget(tokens=BUDGET))


@torch.inference_mode()
def by_hand(model: Any, ids: Sequence[int], in_cache: bool) -> Tensor:
    """One token at a time: cut to S and the last R - 1, append the raw key, rotate by index (or by position).

    Written from the paper's description on the modules of a Llama; returns the logits of every token [N, V].
    """
    config, recent = model.config, BUDGET - SINKS
    heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    layers = model.model.layers
    cache: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in layers]
    logits = []
    for t, token in enumerate(ids):
        hidden = model.model.embed_tokens(torch.tensor([[token]]))
        for number, layer in enumerate(layers):
            slots = cache[number]
            if len(slots) >= SINKS + recent:
                slots[:] = slots[:SINKS] + slots[len(slots) - (recent - 1) :]
            x = layer.input_layernorm(hidden)
            attention = layer.self_attn
            q = attention.q_proj(x).view(1, 1, heads, dim).transpose(1, 2)
            k = attention.k_proj(x).view(1, 1, kv_heads, dim).transpose(1, 2)
            v = attention.v_proj(x).view(1, 1, kv_heads, dim).transpose(1, 2)
            slots.append((t, k, v))
            places = list(range(len(slots))) if in_cache else [p for p, _, _ in slots]
            cos, sin = model.model.rotary_emb(x, torch.tensor([places]))
            keys = torch.cat([k for _, k, _ in slots], dim=2)
            keys = apply_rotary_pos_emb(keys, keys, cos, sin)[0].repeat_interleave(heads // kv_heads, dim=1)
            values = torch.cat([v for _, _, v in slots], dim=2).repeat_interleave(heads // kv_heads, dim=1)
            q = apply_rotary_pos_emb(q, q, cos[:, -1:], sin[:, -1:])[0]
            weights = (q @ keys.transpose(2, 3) * dim**-0.5).softmax(-1)
            hidden = hidden + attention.o_proj((weights @ values).transpose(1, 2).reshape(1, 1, -1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        logits.append(model.lm_head(model.model.norm(hidden))[0, 0])
    return torch.stack(logits)


@pytest.mark.parametrize("positions", ["in-cache", "original"])
@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_streamed_equals_a_cache_cut_by_hand(positions: str, chunk: int) -> None:
    streamed = subject(form="streamed", positions=positions)
    tokens = [int(t[0, 0]) for t in fixed_tokens(1, streamed.engine)]
    together = streamed.run(PROMPTS, streamed.make(streamed.budget), chunk)
    for row, prompt in enumerate(PROMPTS):
        expected = by_hand(streamed.model, [*prompt, *tokens], positions == "in-cache")[-STEPS - 1 :]
        streamed.agree(together.logits[row], expected, f"row {row}")


def test_in_cache_and_original_positions_differ_once_the_cache_is_full() -> None:
    streams = [subject(form="streamed", positions=positions) for positions in ("in-cache", "original")]
    for prompt, same in ((PROMPTS[0], False), (PROMPTS[2], True)):
        one, other = [s.run([prompt], s.make(s.budget)).logits[0, 0] for s in streams]
        assert torch.allclose(one, other, atol=1e-4) == same


@pytest.mark.parametrize("form", ["evict", "streamed"])
def test_kept_positions(form: str) -> None:
    tested = subject(form=form)
    trace = tested.run(PROMPTS, tested.make(tested.budget), 9)
    for row, prompt in enumerate(PROMPTS):
        n = len(prompt)
        expected = list(range(n)) if n <= BUDGET else [*range(SINKS), *range(n - BUDGET + SINKS, n)]
        assert all(head == expected for layer in trace.kept[row] for head in layer)


def test_streamed_keeps_to_its_budget_while_decoding_and_evict_grows() -> None:
    held = {}
    for form in ("evict", "streamed"):
        tested = subject(form=form)
        trace = tested.run(PROMPTS[:1], tested.make(tested.budget))
        places = [p for p in trace.batch.session.stores[0].positions()[0, 0].tolist() if p >= 0]
        held[form] = places
    n = len(PROMPTS[0]) + STEPS
    assert held["streamed"] == [*range(SINKS), *range(n - BUDGET + SINKS, n)]
    assert len(held["evict"]) == BUDGET + STEPS


def test_budgets_as_a_ratio_differ_by_row() -> None:
    tested = subject(form="streamed")
    trace = tested.run(PROMPTS, StreamingLLM(StreamingLLMOptions(budget=Budget(ratio=0.5), sinks=2)), 11)
    assert [len(row[0][0]) for row in trace.kept] == [25, 16, 6]
    alone = tested.run(PROMPTS[1:2], StreamingLLM(StreamingLLMOptions(budget=Budget(ratio=0.5), sinks=2)))
    tested.agree(trace.logits[1], alone.logits[0], "row 1")


def test_bad_options_are_refused() -> None:
    for values, words in (
        ({"budget": "4"}, "recent"),
        ({"form": "evict", "positions": "in-cache"}, "streamed"),
        ({"form": "sliding"}, "streamed"),
    ):
        with pytest.raises(UsageError) as caught:
            build(StreamingLLMOptions, values, owner="method streamingllm")
        assert words in str(caught.value)


def test_registration_and_oracle_mapping() -> None:
    (spec,) = loom_augmentations()
    assert (spec.name, spec.saves, spec.query_aware) == ("streamingllm", "real", False)
    row = oracle_options("kvcf_streamingllm", {"w": 60, "B": 64}, 500)
    assert row == StreamingLLMOptions(budget=Budget(tokens=64), sinks=4, form="evict")
    assert oracle_options("kvpress_snapkv", {"compression_ratio": 0.5}, 100) is None
