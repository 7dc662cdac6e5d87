"""Which options reproduce a recorded result of someone else's H2O. Knows the settings' names, no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_h2o.plugin import H2OOptions
from loom_core.api import Budget, Json


def options(method: str, setting: Mapping[str, Json], n: int) -> H2OOptions | None:
    """The options of a row, or None where this method does not claim it. n: prompt tokens."""
    if method == "kvcf_h2o_oneshot":
        return H2OOptions(
            budget=Budget(tokens=setting["B"]),
            recent=setting["w"],
            form="oneshot",
            group=setting.get("agg", "mean"),
        )
    if method in ("official_h2o", "own_h2o_gqa"):
        return H2OOptions(budget=Budget(tokens=setting["hh"] + setting["recent"]), recent=setting["recent"])
    return None
