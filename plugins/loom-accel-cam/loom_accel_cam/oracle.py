"""Which options reproduce a recorded result of the authors' CaM. Knows the settings' names, no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_cam.plugin import CaMOptions
from loom_core.api import Budget, Json


def options(method: str, setting: Mapping[str, Json], n: int) -> CaMOptions | None:
    """The options of a row, or None where this method does not claim it. n: nothing, since the rows have no prompt."""
    if method != "official_cam":
        return None
    qa = "merge_budget" in setting
    sinks = setting.get("start", setting["T"] - setting["recent"] - 1)
    return CaMOptions(
        budget=Budget(tokens=sinks + setting["recent"]),
        sinks=sinks,
        form="qa" if qa else "text",
        receivers=setting["merge_budget"] if qa else setting["merge_num"],
        coin=setting["coin"],
    )
