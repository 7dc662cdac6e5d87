"""Registers `snapkv`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, Budget, hookimpl, option


@dataclass(frozen=True)
class SnapKVOptions:
    """Defaults are those of the authors' `init_snapkv`."""

    budget: Budget = option(Budget(tokens=2048), help="slots kept per KV head, window included: 1024, 4x, 0.25, 64MiB")
    window: int = option(32, help="how many of the last prompt tokens observe, and are always kept", low=1)
    kernel: int = option(5, help="width of the pooling that keeps neighbours together; odd", low=1)
    pooling: Literal["avg", "max"] = option("avg", help="how neighbouring scores are pooled")
    group: Literal["mean", "max"] = option("mean", help="how the query heads of one KV head are reduced")
    pool: Literal["before", "after"] = option("before", help="pool before or after the group reduction")

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} is even; a pooling centred on a token has an odd width")
        if self.budget.tokens is not None and self.budget.tokens < self.window:
            raise ValueError(
                f"budget={self.budget} is smaller than window={self.window}; the window is kept inside the budget"
            )


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `snapkv`."""
    return (
        AugmentationSpec(
            name="snapkv",
            version="1",
            summary="keep the prompt tokens that the last queries of the prompt attend to, and those queries' own",
            factory="loom_accel_snapkv.method:SnapKV",
            kind="model",
            options=SnapKVOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=True,
            phase="prefill",
            shares_prefix=True,
            source="Li et al. 2024, SnapKV, arXiv:2404.14469; FasterDecoding/SnapKV:snapkv/monkeypatch/snapkv_utils.py"
            ":SnapKVCluster.update_kv; group reduction as in NVIDIA/kvpress (pool=before) and "
            "Zefan-Cai/KVCache-Factory (pool=after)",
            oracle="loom_accel_snapkv.oracle:options",
            status="never run on a GPU",
        ),
    )
