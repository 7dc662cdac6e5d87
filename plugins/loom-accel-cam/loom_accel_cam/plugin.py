"""Registers `cam`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, Budget, hookimpl, option


@dataclass(frozen=True)
class CaMOptions:
    """sinks and receivers as in the authors' scripts; their two scripts differ, and `form` names which one."""

    budget: Budget = option(Budget(tokens=2048), help="slots kept per KV head: 1024, 4x, 0.25, 64MiB")
    host: Literal["streamingllm", "h2o"] = option(
        "streamingllm", help="what evicts: sinks and recent tokens, or heavy hitters and recent tokens"
    )
    form: Literal["text", "qa"] = option(
        "text", help="the authors' rule of text generation (summed attention) or of question answering (one step's)"
    )
    sinks: int = option(4, help="host=streamingllm: tokens at the start that are always kept", low=0)
    recent: int | None = option(
        None, help="host=h2o: how many of the newest tokens are always kept; none = half of the budget", low=1
    )
    receivers: int | None = option(
        None, help="how many of the next tokens take a share of the value; none = 16 for text, 32 for qa", low=1
    )
    coin: Literal["draw", "expected", "always", "never"] = option(
        "draw", help="draw: merge with the probability; expected: the share times the probability; always; never"
    )
    stride: int = option(
        1, help="1: attention of all queries of the prompt, exactly; s: of every s-th one (approximate)", low=1
    )

    def __post_init__(self) -> None:
        if self.recent is not None and self.host != "h2o":
            raise ValueError("recent belongs to host=h2o; with host=streamingllm all but the sinks are recent")
        tokens = self.budget.tokens
        if tokens is not None and self.host == "streamingllm" and tokens <= self.sinks:
            raise ValueError(f"budget={self.budget} leaves no recent token beside sinks={self.sinks}")
        if tokens is not None and self.recent is not None and tokens < self.recent:
            raise ValueError(
                f"budget={self.budget} is smaller than recent={self.recent}; those are kept inside the budget"
            )

    @property
    def merged_into(self) -> int:
        """How many tokens take a share."""
        return self.receivers or (16 if self.form == "text" else 32)


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `cam`."""
    return (
        AugmentationSpec(
            name="cam",
            version="1",
            summary="what leaves the cache while decoding is merged into the values of the next tokens, by chance",
            factory="loom_accel_cam.method:CaM",
            kind="model",
            options=CaMOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=True,
            phase="both",
            source="Zhang et al. 2024, CaM: Cache Merging for Memory-efficient LLMs Inference, ICML 2024; zyxxmu/cam:"
            "generate_task/streaming_llm/kv_cache_cam.py:slicev (form=text), "
            "cam_hf/utils_hh/modify_llama_cam.py:local_cam_mask (form=qa)",
            oracle="loom_accel_cam.oracle:options",
            status="never run on a GPU",
        ),
    )
