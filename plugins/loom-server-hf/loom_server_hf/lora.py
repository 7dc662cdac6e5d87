"""A LoRA adapter, merged into a loaded model: W + scale * B A. Knows the folders that peft saves; needs no peft.

scale is alpha / r, or alpha / sqrt(r) where the adapter says `use_rslora` (peft's own rule). Whatever else an adapter's
configuration asks for (DoRA, trained biases or embeddings, starts that change the base model, …) is refused by its
name: leaving it out would be another model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loom_core.api import ModelError

UNDERSTOOD = frozenset(
    {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out", "target_modules", "peft_type"}
)
NO_MATTER = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)
"""Fields that do not change what trained matrices mean: training, where to look, defaults of what is off."""
STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base model as it is."""
PREFIX = "base_model.model."
HINT = "merge it with peft (merge_and_unload) and give the folder of the merged model"


@dataclass(frozen=True, slots=True)
class Pair:
    """The two matrices of one module: down [r, n_in], up [n_out, r]."""

    down: Tensor
    up: Tensor
    scale: float


def refuse(folder: str, why: str, hint: str = HINT) -> ModelError:
    """The error of an adapter that cannot be merged."""
    return ModelError("this LoRA adapter cannot be merged", where=folder, why=why, hint=hint)


def merge(model: Any, folder: str) -> int:
    """Merge the adapter of a folder into a model, in place: the number of modules changed.

    Raises ModelError for what is not understood, and where adapter and model do not belong together.
    """
    path = Path(folder).expanduser().resolve()
    try:
        config = json.loads((path / "adapter_config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise refuse(folder, str(error), "a folder that peft's LoRA saved") from error
    check(config, folder)
    pairs = read(path, config, folder)
    shared = _shared(model)
    # All is checked before anything is changed.
    weights = {name: _weight(model, name, pair, config, shared, folder) for name, pair in pairs.items()}
    for name, weight in weights.items():
        pair = pairs[name]
        change = pair.scale * (pair.up.to(weight.device).float() @ pair.down.to(weight.device).float())
        with torch.no_grad():
            weight.copy_((weight.float() + (change.T if config.get("fan_in_fan_out") else change)).to(weight.dtype))
    return len(weights)


def check(config: Mapping[str, Any], folder: str) -> None:
    """Refuse every field that is set and not understood."""
    if config.get("peft_type") != "LORA":
        raise refuse(folder, f"peft_type is {config.get('peft_type')!r}")
    if config.get("init_lora_weights", True) not in STARTS:
        start = config["init_lora_weights"]
        raise refuse(folder, f"init_lora_weights={start!r}: such a start changes the base model")
    if config.get("bias", "none") != "none":
        raise refuse(folder, f"bias={config['bias']!r}: it trained biases of the base model, too")
    for name, value in config.items():
        if value and name not in UNDERSTOOD | NO_MATTER | {"init_lora_weights", "bias"}:
            raise refuse(folder, f"{name}={value!r} is not understood")


def read(path: Path, config: Mapping[str, Any], folder: str) -> dict[str, Pair]:
    """The pairs of an adapter by the names of their modules. Raises ModelError for a file that is not whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / "adapter_model.safetensors"
    if not file.is_file():
        raise refuse(folder, f"there is no {file.name}", "save the adapter again with a current peft: safetensors only")
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise refuse(folder, f"{file.name}: {error}", "copy the adapter again") from error
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(rf"(?:{re.escape(PREFIX)})?(.+)\.lora_([AB])\.weight", key)
        if match is None or tensor.dim() != 2:
            what = f"{file.name} holds {key} {tuple(tensor.shape)}"
            raise refuse(folder, f"{what}, which is not a matrix A or B of a linear layer")
        found.setdefault(match[1], {})[match[2]] = tensor
    if not found:
        raise refuse(folder, f"{file.name} holds no matrices")
    _check_targets(config.get("target_modules"), found, folder)
    return {name: _pair(name, matrices, config, folder) for name, matrices in found.items()}


def _check_targets(targets: Any, found: Mapping[str, Any], folder: str) -> None:
    """Refuse a file without matrices for a module that the configuration names."""
    for target in targets if isinstance(targets, list) else ():
        if not any(name == target or name.endswith(f".{target}") for name in found):
            raise refuse(folder, f"target_modules names {target}, and there are no matrices for it", "copy it again")


def _pair(name: str, matrices: Mapping[str, Tensor], config: Mapping[str, Any], folder: str) -> Pair:
    if len(matrices) != 2:
        raise refuse(folder, f"{name} has only matrix {', '.join(matrices)}", "copy the adapter again")
    rank = _by_pattern(config.get("rank_pattern"), name, config.get("r"))
    alpha = _by_pattern(config.get("alpha_pattern"), name, config.get("lora_alpha"))
    down, up = matrices["A"], matrices["B"]
    if not down.shape[0] == up.shape[1] == rank:
        raise refuse(folder, f"{name}: A {tuple(down.shape)} and B {tuple(up.shape)} are not of rank {rank}")
    if not isinstance(alpha, int | float):
        raise refuse(folder, f"lora_alpha is {alpha!r}")
    return Pair(down, up, alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def _by_pattern(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of a module's name, as peft chooses it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def _shared(model: Any) -> set[int]:
    """Parameters that more than one module holds: a change for one would change the other."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return {number for number, n in owners.items() if n > 1}


def _weight(
    model: Any, name: str, pair: Pair, config: Mapping[str, Any], shared: set[int], folder: str
) -> torch.nn.Parameter:
    """The weight that a pair belongs to."""
    try:
        weight = model.get_submodule(name).weight
    except AttributeError:
        why = f"the model has no module {name} with a weight"
        raise refuse(folder, why, "the adapter of this very model") from None
    if not isinstance(weight, torch.nn.Parameter) or not weight.is_floating_point():
        raise refuse(folder, f"the weight of {name} is quantized", "merge the adapter before quantizing")
    expected = (pair.up.shape[0], pair.down.shape[1])
    if tuple(weight.shape) != (expected[::-1] if config.get("fan_in_fan_out") else expected):
        raise refuse(folder, f"{name} has weights {tuple(weight.shape)}, the adapter {expected}", "its own base model")
    if id(weight) in shared:
        raise refuse(folder, f"the weight of {name} is tied to another module's, which would change with it")
    return weight
