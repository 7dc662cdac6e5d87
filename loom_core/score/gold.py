"""What an installed metric says of a row of official scores; for the `score_gold` of benchmarks. Knows no benchmark."""

from __future__ import annotations

from collections.abc import Mapping

from loom_core.contract.protocols import Metric
from loom_core.contract.types import Json, Prompt, Sample, Scored
from loom_core.registry.plugins import installed


def gold_scored(metric: str, row: Mapping[str, Json], meta: Mapping[str, Json] | None = None) -> Scored:
    """What an installed metric says of a row's prediction and references, for a benchmark's `score_gold`.

    meta: what the metric reads of a sample. A prediction that is not a text scores as an empty one.
    """
    catalog = installed()
    opened: Metric = catalog.load(catalog.metrics.get(metric))()
    references, prediction = row["references"], row["prediction"]
    sample = Sample(
        id="gold",
        task=str(row.get("task", "")),
        prompt=Prompt(segments=()),
        references=tuple(references) if isinstance(references, (list, tuple)) else (references,),
        meta=meta or {},
    )
    return opened.score(prediction if isinstance(prediction, str) else "", sample)
