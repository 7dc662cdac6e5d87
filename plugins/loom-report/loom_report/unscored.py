"""What answers without a value could have done to a mean: the mean with all of them wrong, and all right.

One rule for all of them, whether a judge could not be read, was not there, or a scorer failed: such an answer has no
value, is counted, and stands outside the mean; these bounds stand beside it. Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from loom_core.contract.types import Json


def bounds(values: Sequence[float], n_unscored: int, worst: float, best: float) -> list[float] | None:
    """[mean with every missing value the worst one, mean with every one the best]; None where none is missing, or
    where an end of the metric's range is not finite.
    """
    if not n_unscored or not math.isfinite(worst - best):
        return None
    total, n = math.fsum(values), len(values) + n_unscored
    return [(total + n_unscored * end) / n for end in (worst, best)]


def weighed(parts: Iterable[tuple[float, Mapping[str, Json]]]) -> list[float] | None:
    """The bounds of a mean over levels (weight, {score, bounds}); None where nothing is missing, or a level has neither
    score nor bounds.
    """
    rows = [(weight, row.get("bounds"), row.get("score")) for weight, row in parts]
    ends = [(weight, found or [mean, mean]) for weight, found, mean in rows]
    if not any(found for _, found, _ in rows) or any(None in found for _, found in ends):
        return None
    return [math.fsum(weight * found[end] for weight, found in ends) for end in (0, 1)]
