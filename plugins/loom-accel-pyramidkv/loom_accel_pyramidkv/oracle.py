"""Which options reproduce a recorded result of someone else's PyramidKV. Knows the settings' names, no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_pyramidkv.plugin import PyramidKVOptions
from loom_core.api import Budget, Json

_POOLING = {"avgpool": "avg", "maxpool": "max"}


def options(method: str, setting: Mapping[str, Json], n: int) -> PyramidKVOptions | None:
    """The options of a row, or None where this method does not claim it. n: prompt tokens."""
    if method == "kvpress_pyramidkv":
        return PyramidKVOptions(
            budget=Budget(ratio=1 - setting["compression_ratio"]),
            window=setting["window_size"],
            kernel=setting["kernel_size"],
            beta=setting["beta"],
            rule="kvpress",
            pool="before",
        )
    if method in ("kvcf_pyramidkv", "kvcf_pyramidkv_budgets"):
        return PyramidKVOptions(
            budget=Budget(tokens=setting["B"]),
            window=setting["w"],
            kernel=setting.get("k", 5),
            pooling=_POOLING[setting.get("pool", "avgpool")],  # type: ignore[arg-type]
            beta=setting["beta"],
            group=setting.get("agg", "mean"),
        )
    return None
