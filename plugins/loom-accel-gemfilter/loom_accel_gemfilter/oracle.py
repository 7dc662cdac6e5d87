"""Which options reproduce a recorded result of the authors' GemFilter. Knows the settings' names, no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_gemfilter.plugin import GemFilterOptions
from loom_core.api import Budget, Json


def options(method: str, setting: Mapping[str, Json], n: int) -> GemFilterOptions | None:
    """The options of a row, or None where this method does not claim it. n: prompt tokens."""
    if method != "official_gemfilter":
        return None
    return GemFilterOptions(budget=Budget(tokens=setting["topk"]), layer=setting["layer"])
