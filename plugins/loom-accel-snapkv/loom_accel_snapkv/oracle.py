"""Which options reproduce a recorded result of someone else's SnapKV. Knows the settings' names, no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_snapkv.plugin import SnapKVOptions
from loom_core.api import Budget, Json

_POOLING = {"avgpool": "avg", "maxpool": "max"}


def options(method: str, setting: Mapping[str, Json], n: int) -> SnapKVOptions | None:
    """The options of a row, or None where this method does not claim it. n: prompt tokens."""
    if method == "kvpress_snapkv":
        # A share of the prompt that is dropped, truncated in floating point exactly as there.
        kept = int(n * (1 - setting["compression_ratio"]))
        return SnapKVOptions(
            budget=Budget(tokens=kept), window=setting["window_size"], kernel=setting["kernel_size"], pooling="avg"
        )
    if method in ("official_snapkv", "own_snapkv_pool_then_group", "kvcf_snapkv_kvhead"):
        return SnapKVOptions(
            budget=Budget(tokens=setting["B"]),
            window=setting["w"],
            kernel=setting["k"],
            pooling=_POOLING[setting["pool"]],  # type: ignore[arg-type]
            group=setting.get("agg", "mean"),
            pool="after" if method == "kvcf_snapkv_kvhead" else "before",
        )
    return None
