"""Which options reproduce a recorded result of someone else's TOVA. Knows the settings' names, no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_tova.plugin import TOVAOptions
from loom_core.api import Budget, Json


def options(method: str, setting: Mapping[str, Json], n: int) -> TOVAOptions | None:
    """The options of a row, or None where this method does not claim it. n: prompt tokens."""
    if method != "kvpress_tova":
        return None
    # A share of the prompt that is dropped, truncated in floating point exactly as there.
    kept = max(1, int(n * (1 - setting["compression_ratio"])))
    return TOVAOptions(budget=Budget(tokens=kept), form="prefill")
