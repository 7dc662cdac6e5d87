"""Which options reproduce a recorded result of the authors' FlexGen. Knows the settings' names, no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_flexgen.plugin import FlexGenOptions
from loom_core.api import Json


def options(method: str, setting: Mapping[str, Json], n: int) -> FlexGenOptions | None:
    """The options of a row, or None where this method does not claim it. n: prompt tokens."""
    if method != "official_flexgen" or setting.get("bits", 4) != 4:
        return None
    return FlexGenOptions(group=int(setting.get("group", 64)))
