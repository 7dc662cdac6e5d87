"""Registers loom-tiny and the suite that shows it. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence

from loom_core.api import ModelSpec, SuiteSpec, hookimpl


@hookimpl
def loom_models() -> Sequence[ModelSpec]:
    """The embedded default model."""
    return (
        ModelSpec(
            name="loom-tiny",
            version="1",
            summary="2 M-parameter Llama with grouped-query attention that retrieves keys up to 8k tokens",
            factory="loom_model_tiny:path",
            server="hf",
        ),
    )


@hookimpl
def loom_suites() -> Sequence[SuiteSpec]:
    """What `loom run` does without arguments."""
    return (
        SuiteSpec(
            name="quickstart",
            version="1",
            summary="the needle test on loom-tiny, dense and with 256 slots of KV cache: snapkv, streamingllm, random",
            factory="loom_model_tiny:quickstart",
        ),
    )
