"""What this package registers: the server `sglang` and its options.

Option classes and the spec only; imports `loom_core`, never SGLang.
"""

from __future__ import annotations

from collections.abc import Sequence

from loom_core.api import ServerSpec, hookimpl
from loom_core.api.serving import EngineModelOptions, EngineOptions


@hookimpl
def loom_servers() -> Sequence[ServerSpec]:
    """The server `sglang`."""
    return (
        ServerSpec(
            name="sglang",
            version="2",
            summary="SGLang's engine through its offline API: continuous batching, radix cache, tensor parallel",
            factory="loom_server_sglang.server:SglangServer",
            capabilities=frozenset({"token_ids", "prefix_cache", "device", "stream"}),
            options=EngineOptions,
            model_options=EngineModelOptions,
            status="never run on a GPU",
        ),
    )
