"""Registers BERTScore's three parts and their options. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import MetricSpec, hookimpl, option


@dataclass(frozen=True)
class BertScoreOptions:
    """Which model sees the tokens, at which layer, and how they are weighted and rescaled."""

    model: str = option("", help="folder of an encoder for transformers")
    layer: int = option(0, low=0, help="the layer whose vectors are compared, counted from 1; 0: the last")
    idf: str = option(
        "", help="a text file of one reference a line, from which idf weights are counted; empty: none", reach=True
    )
    baseline: str = option(
        "", help="a file of LAYER,P,R,F lines for rescaling, as bert-score ships; empty: none", reach=True
    )
    device: str = option("cpu", help="where the model runs: cpu, cuda, …", how=True)


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """Precision, recall and F1. Rescaled values may leave the range from 0 to 1 at its lower end."""
    return tuple(
        MetricSpec(
            name=f"bertscore_{part}",
            version="1",
            summary=f"BERTScore's {part} with the best reference, by a local model",
            factory=f"loom_metric_bertscore.metric:{part}",
            low=float("-inf"),
            options=BertScoreOptions,
        )
        for part in ("precision", "recall", "f1")
    )
