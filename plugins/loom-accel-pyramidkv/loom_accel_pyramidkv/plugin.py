"""Registers `pyramidkv`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, Budget, hookimpl, option


@dataclass(frozen=True)
class PyramidKVOptions:
    """Defaults are those of the authors' `init_pyramidkv`."""

    budget: Budget = option(
        Budget(tokens=2048), help="slots kept per KV head, mean over the layers, window included: 1024, 4x, 0.25, 64MiB"
    )
    window: int = option(32, help="how many of the last prompt tokens observe, and are always kept", low=1)
    kernel: int = option(5, help="width of the pooling that keeps neighbours together; odd", low=1)
    pooling: Literal["avg", "max"] = option("avg", help="how neighbouring scores are pooled")
    beta: float = option(20.0, help="how steep: the last layer keeps about 1/beta of the mean beside its window", low=1)
    rule: Literal["official", "kvpress"] = option(
        "official", help="official: whole steps from layer to layer, window on top; kvpress: fractional steps"
    )
    group: Literal["mean", "max"] = option("mean", help="how the query heads of one KV head are reduced")
    pool: Literal["before", "after"] = option("after", help="pool before or after the group reduction")

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} is even; a pooling centred on a token has an odd width")
        if self.rule == "official" and self.beta != int(self.beta):
            raise ValueError(f"beta={self.beta:g} is not a whole number; rule=official divides in whole numbers")
        if self.budget.tokens is not None and self.budget.tokens < self.window:
            raise ValueError(
                f"budget={self.budget} is smaller than window={self.window}; the window is kept inside the budget"
            )


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `pyramidkv`."""
    return (
        AugmentationSpec(
            name="pyramidkv",
            version="1",
            summary="SnapKV's choice of prompt tokens, many in the first layers and few in the last",
            factory="loom_accel_pyramidkv.method:PyramidKV",
            kind="model",
            options=PyramidKVOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=True,
            phase="prefill",
            shares_prefix=True,
            source="Cai et al. 2024, PyramidKV, arXiv:2406.02069; Zefan-Cai/KVCache-Factory:pyramidkv/"
            "pyramidkv_utils.py:PyramidKVCluster.update_kv (rule=official); NVIDIA/kvpress PyramidKVPress "
            "(rule=kvpress)",
            oracle="loom_accel_pyramidkv.oracle:options",
            status="never run on a GPU",
        ),
    )
