"""What this package registers: the server `rwkv` and its options.

Option classes and the spec only; imports `loom_core`, never torch or rwkv.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import ServerSpec, hookimpl, option


@dataclass(frozen=True)
class RwkvOptions:
    """How the server works; nothing here changes an answer beyond floating-point rounding."""

    prefill_chunk: int = option(512, help="prompt tokens read in one forward pass", low=2, how=True)
    threads: int | None = option(
        None, help="CPU threads of torch; none = LOOM_THREADS, else torch's own choice", low=1, how=True
    )


@dataclass(frozen=True)
class RwkvModelOptions:
    """What is loaded. Every option is part of the model's identity."""

    strategy: str = option("cpu fp32", help="the package's own: device and number format, such as cuda:0 fp16")
    tokenizer: str = option("world", help="world = the package's vocabulary; else a folder with a tokenizer.json")
    window: int | None = option(None, help="most tokens of prompt and answer; none = no limit, a state has none", low=1)

    def __post_init__(self) -> None:
        if not re.match(r"(cpu|cuda(:\d+)?) (fp32|fp16|bf16)", self.strategy):
            raise ValueError(f"strategy={self.strategy} does not begin like 'cpu fp32' or 'cuda:0 bf16'")


@hookimpl
def loom_servers() -> Sequence[ServerSpec]:
    """The server `rwkv`."""
    return (
        ServerSpec(
            name="rwkv",
            version="1",
            summary="RWKV checkpoints (.pth) with the rwkv package, one prompt at a time",
            factory="loom_server_rwkv.server:RwkvServer",
            capabilities=frozenset({"token_ids", "device", "stream"}),
            options=RwkvOptions,
            model_options=RwkvModelOptions,
            status="RWKV-4 compared with transformers on CPU; never run on a GPU",
        ),
    )
