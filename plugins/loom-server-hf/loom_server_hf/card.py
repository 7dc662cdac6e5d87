"""What can be known of a model before its weights are loaded: digest, window, cost of a token's keys and values.

Reads config.json and the headers of weight files. It imports torch only where transformers needs it: for a
configuration that leaves values to its class, or a tokenizer whose class must be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from loom_core.api import Json, ModelCard, ModelError
from loom_core.api.serving import readers
from loom_server_hf.ends import of_folder
from loom_server_hf.folder import ModelFolder, locate, tensor_headers
from loom_server_hf.plugin import HFModelOptions
from loom_server_hf.rope import Positions, positions
from loom_server_hf.template import variables
from loom_server_hf.tokenizer import load_tokenizer

EXPLICIT = (
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "vocab_size",
    "rope_parameters",
)
"""The fields of a configuration that this module reads; a file that has them all needs no configuration class."""

CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel")
CACHED_LAYERS = ("full_attention", "sliding_attention", "chunked_attention")
OTHER_STATE = ("kv_lora_rank", "layers_block_type", "attn_layer_period", "state_size", "mamba_d_state")
"""Fields of models whose cache is not a plain pair of keys and values in every layer."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SAFETENSORS_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True, slots=True)
class Description:
    """A model's folder, its card, and what loading it needs to know."""

    folder: ModelFolder
    card: ModelCard
    positions: Positions
    dtype: str


def describe(model: str, options: HFModelOptions) -> Description:
    """Everything that is known of `model` without loading it. Raises ModelError where it cannot be loaded."""
    folder = locate(model, options.revision)
    check_causal(folder, options)
    values = read_values(folder, options)
    window = values.get("max_position_embeddings")
    placed = positions(folder.name, values.get("rope_parameters"), window, options)
    dtype = number_format(folder, values, options)
    tokenizer = load_tokenizer(
        folder.path,
        folder.config,
        name=folder.name,
        trust_remote_code=options.trust_remote_code,
        variables=variables(options.template),
    )
    ends = of_folder(folder, values, tokenizer)
    card = ModelCard(
        name=folder.name,
        path=str(folder.path),
        digest=folder.digest(code=options.trust_remote_code),
        window=placed.window,
        tokenizer=tokenizer,
        kv_bytes_per_token=kv_bytes_per_token(values, dtype),
        facts={**facts(folder, values, placed, dtype), "end_ids": sorted(ends.ids)},
        notes=ends.notes,
    )
    found = readers.adapter(options.lora) if options.lora else None
    return Description(folder, readers.with_adapter(card, found), placed, dtype)


def check_causal(folder: ModelFolder, options: HFModelOptions) -> None:
    """Refuse what AutoModelForCausalLM would not load, or would load with a head that was never trained."""
    config, names = folder.config, tuple(folder.config.get("architectures") or ())
    shown = ", ".join(names) or str(config.get("model_type", "no model_type"))
    brought = config.get("auto_map") or {}
    if brought and "AutoModelForCausalLM" in brought:
        if options.trust_remote_code:
            return
        if not _known(config, names):
            raise ModelError(
                f"{folder.name} brings its own Python code",
                where=str(folder.path / "config.json"),
                why=f"transformers has no class for {shown}; auto_map names {brought['AutoModelForCausalLM']}",
                hint="read that code, then add the model option trust_remote_code=true",
            )
    if config.get("is_encoder_decoder") or not _known(config, names):
        raise ModelError(
            f"{folder.name} is not a causal language model",
            where=str(folder.path / "config.json"),
            why=f"architecture {shown}",
            hint="give a model of the kind AutoModelForCausalLM loads (its architecture usually ends in ForCausalLM)",
        )


def _known(config: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    if any(name.endswith(CAUSAL_ENDINGS) for name in names) and not config.get("auto_map"):
        return True
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if names:
        known = {name for value in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for name in _tuple(value)}
        return any(name in known for name in names)
    return config.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _tuple(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def read_values(folder: ModelFolder, options: HFModelOptions) -> dict[str, Any]:
    """The configuration's fields by their common names, with its class's defaults where the file leaves them out."""
    raw = dict(folder.config)
    if all(raw.get(name) is not None for name in EXPLICIT):
        return raw
    from transformers import AutoConfig

    try:
        full = AutoConfig.from_pretrained(
            folder.path, trust_remote_code=options.trust_remote_code, local_files_only=True
        )
    except (ValueError, OSError, KeyError, ImportError) as error:
        raise ModelError(
            f"the configuration of {folder.name} cannot be read",
            where=str(folder.path / "config.json"),
            why=f"{type(error).__name__}: {error}".splitlines()[0],
            hint="the model may need a newer transformers: pip install --upgrade transformers",
        ) from error
    text = full.get_text_config()
    values = {**raw, **{k: v for k, v in text.to_dict().items() if v is not None}}
    for name in EXPLICIT:
        values[name] = getattr(text, name, None)
    heads = values["num_attention_heads"]
    if isinstance(heads, int):
        values["num_key_value_heads"] = values["num_key_value_heads"] or heads
        values["head_dim"] = values["head_dim"] or getattr(text, "hidden_size", 0) // heads
    return values


def number_format(folder: ModelFolder, values: Mapping[str, Any], options: HFModelOptions) -> str:
    """The dtype that will be loaded: the option's, else the configuration's, else that of the stored weights."""
    if options.dtype != "auto":
        return options.dtype
    saved = folder.config.get("dtype") or folder.config.get("torch_dtype") or values.get("dtype")
    if saved:
        return str(saved).removeprefix("torch.")
    for _, _, dtype in tensor_headers(folder.path, folder.weights):
        if dtype in SAFETENSORS_DTYPES:
            return SAFETENSORS_DTYPES[dtype]
    return "float32"


def kv_bytes_per_token(values: Mapping[str, Any], dtype: str) -> int | None:
    """layers x KV heads x head dimension x 2 x bytes per number; None for models that keep other state as well."""
    layers, heads, dim = (values.get(k) for k in ("num_hidden_layers", "num_key_value_heads", "head_dim"))
    plain = all(isinstance(v, int) and v > 0 for v in (layers, heads, dim))
    if not plain or dtype not in BYTES or any(values.get(k) for k in OTHER_STATE):
        return None
    kinds = values.get("layer_types")
    if kinds and any(kind not in CACHED_LAYERS for kind in kinds):
        return None
    return int(prod((layers, heads, dim, 2, BYTES[dtype])))  # type: ignore[arg-type]


def facts(folder: ModelFolder, values: Mapping[str, Any], placed: Positions, dtype: str) -> dict[str, Json]:
    """What the manifest says of the model."""
    headers = tensor_headers(folder.path, folder.weights)
    rows: dict[str, Json] = {
        "architecture": ", ".join(folder.config.get("architectures") or ()) or None,
        "model_type": folder.config.get("model_type"),
        "n_parameters": sum(prod(shape) for _, shape, _ in headers) or None,
        "dtype": dtype,
        "layers": values.get("num_hidden_layers"),
        "heads": values.get("num_attention_heads"),
        "kv_heads": values.get("num_key_value_heads"),
        "head_dim": values.get("head_dim"),
        "vocabulary": values.get("vocab_size"),
        "configured_window": values.get("max_position_embeddings"),
        "rope": placed.rope if placed.rope is not None else values.get("rope_parameters"),
        "window_note": placed.note or None,
        "quantization": (values.get("quantization_config") or {}).get("quant_method"),
    }
    return {key: value for key, value in rows.items() if value is not None}
