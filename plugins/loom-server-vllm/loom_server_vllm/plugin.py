"""What this package registers: the server `vllm` and its options.

Option classes and the spec only; imports `loom_core`, never vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import ServerSpec, hookimpl, option
from loom_core.api.serving import EngineModelOptions, EngineOptions


@dataclass(frozen=True)
class VllmOptions(EngineOptions):
    """How the engine runs."""

    own_process: bool = option(False, help="the engine in a process of its own, as vLLM does by default", how=True)


@hookimpl
def loom_servers() -> Sequence[ServerSpec]:
    """The server `vllm`."""
    return (
        ServerSpec(
            name="vllm",
            version="2",
            summary="vLLM in the worker's process: continuous batching, prefix caching, tensor parallel",
            factory="loom_server_vllm.server:VllmServer",
            capabilities=frozenset({"token_ids", "prefix_cache", "device", "stream"}),
            options=VllmOptions,
            model_options=EngineModelOptions,
            status="run on CPU; never run on a GPU",
        ),
    )
