"""LoRA adapters: equal to merged weights, and to layers with the adapter beside them; the rest is refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loom_server_hf.card import describe
from loom_server_hf.loading import opened
from loom_server_hf.lora import merge
from loom_server_hf.plugin import HFModelOptions, HFServerOptions
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from loom_core.api import Arm, Generation, ModelError, Prompt, Request, Segment

TARGETS = ("q_proj", "down_proj")
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 6,
    "target_modules": list(TARGETS),
    "lora_dropout": 0.1,
    "bias": "none",
    "task_type": "CAUSAL_LM",
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "use_dora": False,
    "modules_to_save": None,
}


def matrices(model: Any, targets: tuple[str, ...] = TARGETS, ranks: dict[str, int] | None = None) -> dict[str, Tensor]:
    """Random A and B for every linear layer whose name ends in a target."""
    generator = torch.Generator().manual_seed(5)
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if last in targets:
            rank = (ranks or {}).get(last, 4)
            shape = module.weight.shape
            found[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, shape[1], generator=generator) * 0.2
            found[f"base_model.model.{name}.lora_B.weight"] = torch.randn(shape[0], rank, generator=generator) * 0.2
    return found


def save(folder: Path, tensors: dict[str, Tensor], **changes: Any) -> str:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))
    return str(folder)


def load(folder: Path) -> Any:
    untyped: Any = LlamaForCausalLM
    return untyped.from_pretrained(folder, dtype=torch.float32).eval()


def beside(model: Any, tensors: dict[str, Tensor], scale: Callable[[str], float]) -> Any:
    """The adapter as it is defined: a second path beside each layer, W untouched."""
    for name, module in model.named_modules():
        key = f"base_model.model.{name}.lora_"
        if key + "A.weight" not in tensors:
            continue
        down, up = tensors[key + "A.weight"], tensors[key + "B.weight"]

        def add(_: Any, given: Any, out: Tensor, down: Tensor = down, up: Tensor = up, name: str = name) -> Tensor:
            changed: Tensor = out + scale(name) * (given[0] @ down.T @ up.T)
            return changed

        module.register_forward_hook(add)
    return model


IDS = torch.arange(10, 40)[None]


@pytest.mark.parametrize(
    ("changes", "ranks", "scale"),
    [
        ({}, {}, lambda name: 6 / 4),
        ({"use_rslora": True}, {}, lambda name: 6 / math.sqrt(4)),
        (
            {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"layers.0.mlp.down_proj": 10}},
            {"down_proj": 2},
            lambda name: 6 / 4 if "q_proj" in name else (10 if ".0." in name else 6) / 2,
        ),
    ],
)
@torch.inference_mode()
def test_an_adapter_equals_its_definition(
    model_folder: Path, tmp_path: Path, changes: dict[str, Any], ranks: dict[str, int], scale: Callable[[str], float]
) -> None:
    tensors = matrices(load(model_folder), ranks=ranks)
    model = load(model_folder)
    plain = model(IDS).logits
    assert merge(model, save(tmp_path / "a", tensors, **changes)) == 4
    expected = beside(load(model_folder), tensors, scale)(IDS).logits
    assert torch.allclose(model(IDS).logits, expected, atol=1e-4) and not torch.allclose(plain, expected, atol=1e-2)


def test_the_server_with_an_adapter_answers_as_with_merged_weights(model_folder: Path, tmp_path: Path) -> None:
    model = load(model_folder)
    tensors = matrices(model)
    lora = save(tmp_path / "adapter", tensors)
    with torch.no_grad():
        for key in [key for key in tensors if key.endswith("lora_A.weight")]:
            name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            up = tensors[key.replace("lora_A", "lora_B")]
            model.get_submodule(name).weight += 6 / 4 * (up @ tensors[key])
    merged = tmp_path / "merged"
    model.save_pretrained(merged)
    for file in model_folder.iterdir():
        if "token" in file.name or "template" in file.name:
            (merged / file.name).write_bytes(file.read_bytes())
    with_adapter, alone = (said(model_folder, lora=lora), said(model_folder))
    assert with_adapter == said(merged) and with_adapter != alone


def said(folder: Path, **options: Any) -> list[tuple[int, ...] | None]:
    requests = [
        Request(
            key=str(n),
            job=str(n),
            step=0,
            prompt=Prompt(segments=(Segment(kind="question", text="x"),)),
            generation=Generation(max_tokens=16),
            group="",
            seed=0,
            token_ids=tuple(range(20, 20 + n)),
        )
        for n in (9, 13)
    ]
    with opened(str(folder), HFModelOptions(device="cpu", **options), HFServerOptions()) as session:
        found = {r.key: r.token_ids for r in session.generate(iter(requests), Arm(name="dense"))}
    return [found[key] for key in sorted(found)]


def test_the_digest_of_the_adapter_enters_the_card(model_folder: Path, tmp_path: Path) -> None:
    tensors = matrices(load(model_folder))
    lora = save(tmp_path / "a", tensors)
    plain = describe(str(model_folder), HFModelOptions()).card
    one = describe(str(model_folder), HFModelOptions(lora=lora)).card
    save(tmp_path / "a", tensors, lora_alpha=7)
    other = describe(str(model_folder), HFModelOptions(lora=lora)).card
    assert len({plain.digest, one.digest, other.digest}) == 3 and one.facts["lora_rank"] == 4


@torch.inference_mode()
def test_transposed_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    untyped: Any = GPT2LMHeadModel
    model = untyped(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=50)).eval()
    weight = model.get_submodule("transformer.h.0.attn.c_attn").weight.clone()
    down, up = torch.randn(4, 16), torch.randn(48, 4)
    name = "base_model.model.transformer.h.0.attn.c_attn.lora_"
    tensors = {name + "A.weight": down, name + "B.weight": up}
    with pytest.raises(ModelError, match=r"cannot be merged(?s:.)*has weights \(16, 48\)"):
        raise_as_text(model, save(tmp_path / "a", tensors, target_modules=["c_attn"]))
    merge(model, save(tmp_path / "a", tensors, target_modules=["c_attn"], fan_in_fan_out=True))
    assert torch.allclose(model.get_submodule("transformer.h.0.attn.c_attn").weight, weight + 1.5 * (up @ down).T)
    head = {f"base_model.model.lm_head.lora_{x}.weight": t for x, t in (("A", down), ("B", torch.randn(50, 4)))}
    with pytest.raises(ModelError, match="tied to another"):
        raise_as_text(model, save(tmp_path / "b", head, target_modules=["lm_head"]))


def raise_as_text(model: Any, folder: str) -> None:
    """`merge`, with the whole message where it fails."""
    try:
        merge(model, folder)
    except ModelError as error:
        raise ModelError(str(error)) from error


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_dora": True}, "use_dora=True is not understood"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "trained biases"),
        ({"init_lora_weights": "pissa"}, "changes the base model"),
        ({"something_new": 3}, "something_new=3 is not understood"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"r": 8}, "not of rank 8"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"target_modules": ["q_proj", "v_proj"]}, "names v_proj"),
    ],
)
def test_what_is_not_understood_is_refused(
    model_folder: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    model = load(model_folder)
    before = model.get_submodule("model.layers.0.self_attn.q_proj").weight.clone()
    with pytest.raises(ModelError, match=told):
        raise_as_text(model, save(tmp_path / "a", matrices(model), **changes))
    assert torch.equal(model.get_submodule("model.layers.0.self_attn.q_proj").weight, before)


def test_files_that_are_not_whole(model_folder: Path, tmp_path: Path) -> None:
    model = load(model_folder)
    tensors = matrices(model)
    half = {key: tensor for key, tensor in tensors.items() if not ("layers.1" in key and "lora_B" in key)}
    embedding = {**tensors, "base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(4, 400)}
    elsewhere = {key.replace("layers.1", "layers.7"): tensor for key, tensor in tensors.items()}
    none: dict[str, Tensor] = {}
    cases = ((half, "only matrix A"), (embedding, "lora_embedding_A"), (elsewhere, "no module"), (none, "no matrices"))
    for content, told in cases:
        with pytest.raises(ModelError, match=told):
            raise_as_text(model, save(tmp_path / "a", content))
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be merged"):
        merge(model, str(tmp_path / "a"))
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors only"):
        raise_as_text(model, str(tmp_path / "a"))
