"""What this package registers: the server `sglang` and its options.

Option classes and the spec only; imports `loom_core`, never SGLang.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.hookspecs import hookimpl
from loom_core.options import option
from loom_core.specs import ServerSpec


@dataclass(frozen=True)
class SglangOptions:
    """How the engine runs. Any other engine argument goes through `engine`, by SGLang's own name."""

    tensor_parallel: int = option(1, help="GPUs that one engine is spread over (tp_size)", low=1, how=True)
    max_batch: int = option(256, help="most requests that the engine runs at once", low=1, how=True)
    memory: float | None = option(
        None, help="share of the GPU's memory for weights and cache; none = SGLang's own", low=0.01, high=1.0, how=True
    )
    prefix_caching: bool = option(True, help="keep the keys and values of shared prefixes (radix cache)", how=True)
    eager: bool = option(False, help="no CUDA graphs: a quicker start, slower steps", how=True)
    engine: str = option("", help="further engine arguments: a JSON object, or a .json or .toml file")

    @property
    def batch(self) -> int:
        """How many requests a worker should be handed: enough that the engine's batch never runs empty."""
        return 2 * self.max_batch


@dataclass(frozen=True)
class SglangModelOptions:
    """What is loaded. Every option is part of the model's identity."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="number format of weights and cache; auto = the one the model was saved in"
    )
    window: int | None = option(None, help="most tokens of prompt and answer; none = the configuration's", low=1)
    quantization: str | None = option(None, help="SGLang's quantization method; none = what the checkpoint says")
    lora: str | None = option(None, help="folder of a LoRA adapter")
    revision: str | None = option(None, help="branch, tag or commit of a hub model; none = main")
    trust_remote_code: bool = option(False, help="run Python code that comes with the model; read it first")


@hookimpl
def loom_servers() -> Sequence[ServerSpec]:
    """The server `sglang`."""
    return (
        ServerSpec(
            name="sglang",
            version="1",
            summary="SGLang's engine through its offline API: continuous batching, radix cache, tensor parallel",
            factory="loom_server_sglang.server:SglangServer",
            capabilities=frozenset({"token_ids", "prefix_cache", "device", "stream"}),
            options=SglangOptions,
            model_options=SglangModelOptions,
            status="never run on a GPU",
        ),
    )
