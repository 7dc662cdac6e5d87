"""State-space, linear and hybrid models: a tiny random one of each answers alike alone and in a left-padded batch."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from loom_server_hf.engine import Engine, Row, RowResult
from loom_server_hf.loading import opened
from loom_server_hf.plugin import HFModelOptions, HFServerOptions
from loom_server_hf.recurrent import StateEngine, StatePass, mapped, own_state
from transformers import PreTrainedTokenizerFast

from loom_core.api import Arm, Generation, ModelError, Prompt, Request, Segment, installed, parse_arms

COMMON: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
HEADS: dict[str, Any] = {
    **COMMON,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
SSM: dict[str, Any] = {
    **HEADS,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
DELTA: dict[str, Any] = {
    **HEADS,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Mamba": ("MambaConfig", {**COMMON, "state_size": 8}),
    "Mamba2": ("Mamba2Config", {**COMMON, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}),
    "FalconMamba": ("FalconMambaConfig", {**COMMON, "state_size": 8}),
    "Rwkv": ("RwkvConfig", {**COMMON, "intermediate_size": 48}),
    "RecurrentGemma": (
        "RecurrentGemmaConfig",
        {
            **COMMON,
            "num_hidden_layers": 3,
            "intermediate_size": 96,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "attention_window_size": 16,
        },
    ),
    "Jamba": (
        "JambaConfig",
        {**HEADS, **EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 4},
    ),
    "Bamba": ("BambaConfig", {**SSM, "attn_layer_indices": [1]}),
    "Zamba2": (
        "Zamba2Config",
        {
            **HEADS,
            "num_key_value_heads": 4,
            "layers_block_type": ["mamba", "hybrid"],
            "mamba_d_state": 8,
            "n_mamba_heads": 4,
            "chunk_size": 8,
        },
    ),
    "Qwen3-Next": (
        "Qwen3NextConfig",
        {**DELTA, **EXPERTS, "head_dim": 8, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    ),
    "Qwen3.5": ("Qwen3_5TextConfig", {**DELTA, "head_dim": 8}),
    "Lfm2": ("Lfm2Config", {**HEADS, "layer_types": ["conv", "full_attention"]}),
    "GraniteMoeHybrid": (
        "GraniteMoeHybridConfig",
        {**SSM, "num_local_experts": 4, "shared_intermediate_size": 48, "layer_types": ["mamba", "attention"]},
    ),
    "FalconH1": ("FalconH1Config", {**SSM, "mamba_d_ssm": 64}),
    "MiniMax": (
        "MiniMaxConfig",
        {**HEADS, "head_dim": 8, "num_local_experts": 4, "layer_types": ["linear_attention", "full_attention"]},
    ),
    "NemotronH": (
        "NemotronHConfig",
        {
            **{name: value for name, value in HEADS.items() if name != "num_hidden_layers"},
            "layers_block_type": ["mamba", "attention", "moe"],
            "head_dim": 8,
            "ssm_state_size": 8,
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "n_groups": 1,
            "chunk_size": 8,
            "n_routed_experts": 4,
            "moe_intermediate_size": 16,
            "moe_shared_expert_intermediate_size": 16,
        },
    ),
    "OlmoHybrid": ("OlmoHybridConfig", DELTA),
}
BATCHING = {"Rwkv": "single", "RecurrentGemma": "equal", "MiniMax": "equal"}
"""Families that transformers computes wrongly in a padded batch, or in any: the probe must have noticed."""
NEW = 24


def made(name: str) -> Any:
    """A random model with weights wide enough that it does not repeat one token for ever."""
    config, values = FAMILIES[name]
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_config(getattr(transformers, config)(**values))
    with torch.no_grad():
        for label, parameter in model.named_parameters():
            if parameter.dim() == 2 and "A_log" not in label and "gate.weight" not in label:
                parameter.mul_(3.0)
        for label, parameter in model.named_parameters():
            # As trained ones are: padding is no zero, and neither is a bias.
            if label.endswith("linear_x.bias"):
                parameter.normal_(0.0, 0.3)
        model.get_input_embeddings().weight[0].normal_(0.0, 0.3)
    return model.float().eval()


@functools.cache
def engine(name: str) -> StateEngine:
    model = made(name)
    state = own_state(model)
    assert state, "it is known by its structure"
    return StateEngine(model, state)


def row(n: int, tokens: int = NEW) -> Row:
    ids = tuple((place * 31 + n) % 250 + 3 for place in range(n))
    return Row(ids=ids, max_tokens=tokens, seed=0, eos_ids=frozenset())


def answers(name: str, rows: list[Row]) -> list[RowResult]:
    found = dict(engine(name).run(rows))
    return [found[index] for index in range(len(rows))]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_in_a_batch_equals_the_row_alone(name: str) -> None:
    rows = [row(37), row(61), row(37, 9), row(50, 15)]
    together = answers(name, rows)
    for index, single in enumerate(rows):
        assert together[index].error is None
        assert together[index].token_ids == answers(name, [single])[0].token_ids, index
    assert len(together[0].token_ids) == NEW and len({t for r in together for t in r.token_ids}) > 8
    assert engine(name).batching == BATCHING.get(name, "padded")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_state_equals_reading_everything_anew(name: str) -> None:
    asked = row(40)
    (answer,) = answers(name, [asked])
    ids = list(asked.ids)
    with torch.inference_mode():
        for token in answer.token_ids[:12]:
            logits = engine(name).model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert float(logits.max() - logits[token]) < 1e-4
            ids.append(token)


@pytest.mark.parametrize("name", FAMILIES)
def test_methods_are_refused_by_a_rule_that_names_the_layer(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        list(engine(name).run([row(9)], policy=object()))
    assert "layer 0" in caught.value.where and "rule: own state" in caught.value.where
    with pytest.raises(ModelError, match="rule: "):
        Engine(engine(name).model)


@pytest.mark.parametrize("name", ["Mamba", "Rwkv"])
def test_a_pure_state_does_not_grow(name: str) -> None:
    short, long = (answers(name, [row(n)])[0].kv for n in (20, 200))
    assert short.bytes_held == long.bytes_held > 0 and short.saves == "none" and "own state" in short.notes[0]


def test_the_bytes_of_a_state_are_counted() -> None:
    model = engine("Mamba").model
    held = answers("Mamba", [row(20)])[0].kv.bytes_held
    config = model.config
    expected = config.num_hidden_layers * 2 * config.hidden_size * (config.conv_kernel + config.state_size) * 4
    assert held == expected
    grown = [answers("Lfm2", [row(n)])[0].kv.bytes_held for n in (20, 21)]
    assert grown[1] - grown[0] == 1 * 2 * 2 * 8 * 4, "one attention layer, k and v, two heads of 8, float32"


def test_rows_that_cannot_be_asked_are_errors() -> None:
    none, fine = answers("Mamba", [Row(ids=(), max_tokens=3, seed=0, eos_ids=frozenset()), row(9, 3)])
    assert "empty" in str(none.error) and len(fine.token_ids) == 3


def test_one_token_is_read_after_a_longer_prompt() -> None:
    fresh = answers("RecurrentGemma", [row(1)])[0].token_ids
    answers("RecurrentGemma", [row(30)])
    assert answers("RecurrentGemma", [row(1)])[0].token_ids == fresh


def test_a_wrong_state_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("Mamba")
    forward = StatePass._forward

    def forgetful(self: StatePass, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        self.state, self.read = None, False
        return forward(self, ids, positions)

    monkeypatch.setattr(StatePass, "_forward", forgetful)
    with pytest.raises(ModelError, match="rule: equal results with its state"):
        StateEngine(model, own_state(model))


def test_a_model_with_plain_attention_has_no_state_of_its_own() -> None:
    config = transformers.LlamaConfig(**{**HEADS, "head_dim": 8})
    assert own_state(transformers.LlamaForCausalLM(config)) == ""


def test_tensors_are_changed_wherever_a_cache_keeps_them() -> None:
    class Layer:
        def __init__(self) -> None:
            self.keys, self.states, self.n = torch.zeros(2, 3), {0: torch.zeros(2, 1), 1: None}, 5

    layer = Layer()
    changed = mapped([layer, (torch.zeros(2, 2), "x")], lambda tensor: tensor[:1])
    first: Any = layer.states[0]
    assert layer.keys.shape[0] == first.shape[0] == changed[1][0].shape[0] == 1 and layer.n == 5


@pytest.mark.parametrize("name", ["Mamba", "Rwkv", "FalconH1"])
def test_a_folder_is_opened_and_answers(name: str, tmp_path: Path, new_tokenizer: Any) -> None:
    tokenizer: PreTrainedTokenizerFast = new_tokenizer()
    config, values = FAMILIES[name]
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForCausalLM
    auto.from_config(getattr(transformers, config)(**{**values, "vocab_size": 400})).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    requests = [request(str(n), n) for n in (5, 9, 9)]
    with opened(str(tmp_path), HFModelOptions(device="cpu"), HFServerOptions()) as session:
        assert session.card.kv_bytes_per_token is None
        responses = {r.key: r for r in session.generate(iter(requests), Arm(name="dense"))}
        asked = request("c", 8, protocol="context-only")
        (refused,) = session.generate(iter([asked]), Arm(name="dense"))
        assert "rule: own state" in str(refused.error)
        if "snapkv" in installed().augmentations:
            with pytest.raises(ModelError, match="rule: own state"):
                list(session.generate(iter(requests), parse_arms(["snapkv:budget=64"], installed())[-1]))
    assert len(responses) == 2 and all(r.error is None and r.n_out for r in responses.values())


def request(key: str, n: int, **more: Any) -> Request:
    return Request(
        key=key,
        job=key,
        step=0,
        prompt=Prompt(segments=(Segment(kind="question", text="x"),)),
        generation=Generation(max_tokens=6),
        group="g",
        seed=0,
        token_ids=tuple(range(10, 10 + n)),
        **more,
    )
