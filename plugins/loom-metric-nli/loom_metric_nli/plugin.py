"""Registers the citation metrics and their options. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import MetricSpec, hookimpl, option


@dataclass(frozen=True)
class CitationOptions:
    """Which model says what entails what, and how an answer becomes sentences."""

    model: str = option(
        "", help="folder of an entailment model for transformers; words: the double (a claim's words are all there)"
    )
    sentences: Literal["punkt", "rule"] = option(
        "punkt", help="punkt: nltk's tokenizer, as the authors; rule: at white space after . ! and ?"
    )
    at_most: int = option(3, low=1, help="citations of a sentence that count")
    batch: int = option(8, low=1, help="pairs that the model reads at a time", how=True)
    device: str = option("cpu", help="where the model runs: cpu, cuda, …", how=True)


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """Recall, precision, F1 and the number of citations."""
    rows = (
        ("citation_recall", "share of sentences that their citations entail", "recall", 1.0),
        ("citation_precision", "share of citations that are needed", "precision", 1.0),
        ("citation_f1", "harmonic mean of citation recall and precision of one answer", "f1", 1.0),
        ("citation_count", "citations that count in one answer", "count", float("inf")),
    )
    return tuple(
        MetricSpec(
            name=name,
            version="2",
            summary=summary,
            factory=f"loom_metric_nli.citations:{factory}",
            high=high,
            options=CitationOptions,
        )
        for name, summary, factory, high in rows
    )
