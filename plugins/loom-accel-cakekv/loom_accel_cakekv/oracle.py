"""Which options reproduce a recorded result of the authors' CAKE. Knows the settings' names, no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_cakekv.plugin import CakeKVOptions
from loom_core.api import Budget, Json


def options(method: str, setting: Mapping[str, Json], n: int) -> CakeKVOptions | None:
    """The options of a row, or None where this method does not claim it. n: prompt tokens."""
    if method != "official_cake":
        return None
    return CakeKVOptions(
        budget=Budget(tokens=setting["B"]),
        window=setting["w"],
        gamma=setting["gamma"],
        tau1=setting["tau1"],
        tau2=setting["tau2"],
        cascading=setting["cascading"],
    )
