"""Which options reproduce a recorded result of someone else's Ada-KV or expected attention.

Knows the settings' names. What a recorded case says in its name only (window, kernel and epsilon of kvpress's base
scores) is stated here.
"""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_adakv.plugin import AdaKVOptions
from loom_core.api import Budget, Json

_POOLING = {"avgpool": "avg", "maxpool": "max"}


def options(method: str, setting: Mapping[str, Json], n: int) -> AdaKVOptions | None:
    """The options of a row, or None where this method does not claim it. n: prompt tokens."""
    if method == "kvcf_adakv":
        return AdaKVOptions(
            budget=Budget(tokens=setting["B"]),
            floor=setting["floor"],
            normalize=setting["normalize"],
            window=setting["w"],
            kernel=setting["k"],
            pooling=_POOLING[setting["pool"]],  # type: ignore[arg-type]
        )
    if method == "kvpress_adakv" and setting["base"] == "snap":
        return AdaKVOptions(
            budget=_kept(n, setting["ratio"]),
            rule="kvpress",
            floor=setting["a"],
            window=setting.get("window_size", 16),
            kernel=setting.get("kernel_size", 5),
            pooling="avg",
            pool="before",
        )
    if method == "kvpress_adakv" and setting["base"] == "ea":
        return AdaKVOptions(
            budget=_kept(n, setting["ratio"]),
            rule="kvpress",
            floor=setting["a"],
            base="expected-attention",
            epsilon=setting.get("epsilon", 0.01),
        )
    if method == "kvpress_expected_attention":
        # A floor of one makes every head sure of its whole budget: the base score by itself.
        return AdaKVOptions(
            budget=_kept(n, setting["compression_ratio"]),
            rule="kvpress",
            floor=1.0,
            base="expected-attention",
            sinks=setting.get("n_sink", 4),
            future=setting.get("n_future_positions", 512),
            covariance=setting.get("use_covariance", True),
            value_norm=setting.get("use_vnorm", True),
            epsilon=setting.get("epsilon", 0.0),
        )
    return None


def _kept(n: int, ratio: float) -> Budget:
    """A share of the prompt that is dropped, truncated in floating point exactly as there."""
    return Budget(tokens=max(1, int(n * (1 - ratio))))
