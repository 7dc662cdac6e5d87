"""Model families: a tiny random model of each passes the rules of methods, or is refused by a rule that is named."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import transformers
from loom_kv import Policy
from loom_kv.testing import CHECKS, Subject, toy_prompts, u9_context_only, u9_prefix
from loom_server_hf.engine import Engine
from loom_server_hf.session import load_policy

from loom_core.api import Budget, ModelError, installed, parse_arms

TINY: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
LATENT: dict[str, Any] = {
    **TINY,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 24,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
}
GEMMA: dict[str, Any] = {**TINY, "head_dim": 16}
PASS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", TINY),
    "Mistral, no sliding window": ("MistralConfig", {**TINY, "sliding_window": None}),
    "Qwen2": ("Qwen2Config", TINY),
    "Qwen3": ("Qwen3Config", {**TINY, "head_dim": 16}),
    "Phi-3": ("Phi3Config", {**TINY, "sliding_window": None}),
    "GLM-4": ("Glm4Config", {**TINY, "head_dim": 16}),
    "Gemma-3, full attention": ("Gemma3TextConfig", {**GEMMA, "layer_types": ["full_attention"] * 3}),
    "DeepSeek-V2": ("DeepseekV2Config", LATENT),
    "DeepSeek-V3": ("DeepseekV3Config", LATENT),
    "Mixtral": ("MixtralConfig", {**TINY, "num_local_experts": 4, "sliding_window": None}),
}
"""Families that keep every rule."""
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "Mistral, sliding window": ("MistralConfig", {**TINY, "sliding_window": 32}, "rule: sliding window"),
    "Qwen2, sliding layers": (
        "Qwen2Config",
        {**TINY, "use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1},
        "layer 1 (rule: full attention)",
    ),
    "Phi-3, sliding window": ("Phi3Config", {**TINY, "sliding_window": 32}, "rule: sliding window"),
    "Mixtral, sliding window": (
        "MixtralConfig",
        {**TINY, "num_local_experts": 4, "sliding_window": 32},
        "rule: sliding window",
    ),
    "Gemma-3": ("Gemma3TextConfig", GEMMA, "layer 0 (rule: full attention)"),
}
"""Families that are refused, and the rule that says so."""
ARMS = ("snapkv:window=8,budget={B}", "streamingllm:budget={B}")
RULES = {**CHECKS, "U9 shared prefix": u9_prefix, "U9 context-only": u9_context_only}
NOT_ROTATED = ("DeepSeek-V2", "DeepSeek-V3", "Gemma-3, full attention")
"""Rotations that the host cannot apply: of a part of each key, or another one for each kind of layer."""


@functools.cache
def model(name: str) -> Any:
    """A random model with peaked attention: at the usual scale every score ties, and nothing is tested."""
    config, values = PASS[name]
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForCausalLM
    made = auto.from_config(getattr(transformers, config)(**values))
    with torch.no_grad():
        for label, parameter in made.named_parameters():
            if parameter.dim() == 2 and "gate.weight" not in label:
                parameter.mul_(4.0)
    return made.float().eval()


@functools.cache
def subject(name: str, arm: str) -> Subject:
    """An arm on a family, with three prompts of unequal length."""

    def make(budget: Budget) -> Policy:
        policy: Policy = load_policy(parse_arms([arm.replace("{B}", str(budget))], installed())[-1])
        return policy

    return Subject(model(name), make, toy_prompts((57, 80, 44), 256), Budget(tokens=32), chunk=23)


def installed_arms() -> list[str]:
    """The arms of this test whose methods are installed."""
    return [arm for arm in ARMS if arm.partition(":")[0] in installed().augmentations]


@pytest.mark.parametrize("name", PASS)
@pytest.mark.parametrize("arm", installed_arms())
def test_a_family_passes_every_rule(arm: str, name: str) -> None:
    if arm.startswith("streamingllm") and name in NOT_ROTATED:
        with pytest.raises(ModelError, match="rule: rotary"):
            subject(name, arm).run([(5, 6, 7)], subject(name, arm).make(Budget(tokens=32)))
        return
    for check in RULES.values():
        check(subject(name, arm))


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_is_refused_by_its_rule(name: str) -> None:
    config, values, rule = REFUSED[name]
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForCausalLM
    with pytest.raises(ModelError) as caught:
        Engine(auto.from_config(getattr(transformers, config)(**values)).eval())
    assert rule in str(caught.value)


def test_every_family_is_in_one_of_the_two_lists() -> None:
    families = "Llama Mistral Qwen2 Qwen3 Phi-3 GLM-4 Gemma-3 DeepSeek-V2 DeepSeek-V3 Mixtral"
    for family in families.split():
        assert any(name.split(",")[0] == family for name in (*PASS, *REFUSED)), family
    assert not set(PASS) & set(REFUSED)
