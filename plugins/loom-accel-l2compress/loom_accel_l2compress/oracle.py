"""Which options reproduce a recorded result of someone else's L2 compression. Knows the settings' names, no numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from loom_accel_l2compress.plugin import L2CompressOptions
from loom_core.api import Budget, Json


def options(method: str, setting: Mapping[str, Json], n: int) -> L2CompressOptions | None:
    """The options of a row, or None where this method does not claim it. n: prompt tokens."""
    if method == "kvpress_knorm":
        # A share of the prompt that is dropped, truncated in floating point exactly as there; at least one token.
        kept = max(1, int(n * (1 - setting["compression_ratio"])))
        return L2CompressOptions(budget=Budget(tokens=kept), skip_layers="none")
    if method == "official_l2compress":
        return L2CompressOptions(
            budget=Budget(tokens=math.ceil(setting["keep_ratio"] * n)),
            skip_layers=_layers(setting["skip_layers"]),
            prune_after=setting["prune_after"],
        )
    if method == "kvcf_l2norm":
        return L2CompressOptions(budget=Budget(tokens=setting["B"]), skip_layers=_layers(setting["skip"]))
    return None


def _layers(listed: Sequence[int]) -> str:
    return "/".join(map(str, listed)) or "none"
