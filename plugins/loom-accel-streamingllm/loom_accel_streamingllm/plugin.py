"""Registers `streamingllm`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, Budget, hookimpl, option


@dataclass(frozen=True)
class StreamingLLMOptions:
    """Two methods share the name; `form` says which. The default is the paper's; most toolkits run `evict`."""

    budget: Budget = option(Budget(tokens=2048), help="slots kept per KV head, sinks included: 1024, 4x, 0.25, 64MiB")
    sinks: int = option(4, help="tokens at the start of the prompt that are always kept", low=0)
    form: Literal["streamed", "evict"] = option(
        "streamed",
        help="streamed: the paper's, cut before every token, also decoding; evict: full prefill, then cut once",
    )
    positions: Literal["auto", "in-cache", "original"] = option(
        "auto", help="of cached keys; auto = original for evict, in-cache (the paper's) for streamed"
    )

    def __post_init__(self) -> None:
        if self.form == "evict" and self.positions == "in-cache":
            raise ValueError(
                "in-cache positions belong to form=streamed: a full prefill has already seen the text's own"
            )
        if self.budget.tokens is not None and self.budget.tokens <= self.sinks:
            raise ValueError(f"budget={self.budget} leaves no recent token beside sinks={self.sinks}")


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `streamingllm`."""
    return (
        AugmentationSpec(
            name="streamingllm",
            version="1",
            summary="keep the first tokens and the most recent ones (form=streamed: at every step, as in the paper)",
            factory="loom_accel_streamingllm.method:StreamingLLM",
            kind="model",
            options=StreamingLLMOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=False,
            shares_prefix=True,
            phase="both",
            extends_context=False,
            source="Xiao et al. 2023, Efficient Streaming Language Models with Attention Sinks, arXiv:2309.17453; "
            "mit-han-lab/streaming-llm:streaming_llm/kv_cache.py:StartRecentKVCache and "
            "pos_shift/modify_llama.py (form=streamed); NVIDIA/kvpress StreamingLLMPress (form=evict)",
            oracle="loom_accel_streamingllm.oracle:options",
            status="never run on a GPU",
        ),
    )
