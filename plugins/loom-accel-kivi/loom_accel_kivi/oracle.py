"""Which options reproduce a recorded result of the authors' KIVI. Knows the settings' names, no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_kivi.plugin import KIVIOptions
from loom_core.api import Json


def options(method: str, setting: Mapping[str, Json], n: int) -> KIVIOptions | None:
    """The options of a row, or None where this method does not claim it. n: prompt tokens.

    A row of the quantiser alone names no window; one without bits is of a constant block, in 2 bits and groups of 32.
    """
    if method != "official_kivi":
        return None
    group = int(setting.get("group", 32))
    return KIVIOptions(
        bits=str(setting.get("bits", 2)),  # type: ignore[arg-type]
        group=group,
        window=int(setting.get("residual", group)),
    )
