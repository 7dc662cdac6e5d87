"""Gold rows: predictions scored by a benchmark's own authors, and whether loom scores them equally.

A row has `benchmark`, `prediction`, `references`, `official_score`, and what else its scorer looks at. Knows rows and
installed benchmarks; the scoring is the benchmark's (`score_gold`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from loom_core.contract.errors import PluginError, UsageError, nearest
from loom_core.contract.options import build
from loom_core.contract.types import Json
from loom_core.registry.plugins import installed


def score_gold_row(row: Mapping[str, Json]) -> Json:
    """The score of a row by the installed benchmark it names, in the shape of its official score.

    A row's `long_bench` names the benchmark `long-bench` too; a row without `references` or `extra` has none. Raises
    UsageError where no such benchmark is installed or the row lacks `benchmark` or `prediction`, PluginError where the
    benchmark has no `score_gold`.
    """
    for name in ("benchmark", "prediction"):
        if name not in row:
            raise UsageError(
                f"the row has no {name!r}", hint="a row is {benchmark, task, metric, prediction, references}"
            )
    row = {"references": [], "extra": {}, **row}
    catalog = installed()
    wanted = _plain(str(row["benchmark"]))
    found = next((found for found in catalog.benchmarks if _plain(found.spec.name) == wanted), None)
    if found is None:
        known = [found.spec.name for found in catalog.benchmarks]
        raise UsageError(f"no benchmark {row['benchmark']!r} is installed", hint=nearest(str(row["benchmark"]), known))
    options = build(found.spec.options, {}, owner=f"benchmark {found.spec.name}")
    scorer: Callable[[Mapping[str, Json]], Json] | None = getattr(catalog.load(found)(options), "score_gold", None)
    if scorer is None:
        raise PluginError(f"benchmark {found.spec.name} scores no gold rows", where=found.distribution)
    return scorer(row)


def agrees(score: Json, official: Json, tolerance: float = 1e-9) -> bool:
    """True where both have one shape and their numbers differ by at most `tolerance`, relative or absolute."""
    if isinstance(official, Mapping):
        return (
            isinstance(score, Mapping)
            and score.keys() == official.keys()
            and all(agrees(score[name], official[name], tolerance) for name in official)
        )
    if isinstance(official, (list, tuple)):
        return (
            isinstance(score, (list, tuple))
            and len(score) == len(official)
            and all(agrees(a, b, tolerance) for a, b in zip(score, official, strict=True))
        )
    if isinstance(official, (int, float)) and isinstance(score, (int, float)):
        return math.isclose(score, official, rel_tol=tolerance, abs_tol=tolerance)
    return bool(score == official)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c not in "_- ")
