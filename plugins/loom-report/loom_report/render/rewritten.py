"""What prompt augmentations did, as texts for tables: recall of evidence, own time and calls. Knows report rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom_report.render import text

from loom_core.contract.types import Json


def recall(row: Mapping[str, Any]) -> str:
    """The share of evidence that the model saw; shown where a prompt was rewritten or cut."""
    seen = row.get("evidence")
    if seen is None or (row["cost"]["rewriting"] is None and seen["recall"] == 1):
        return text.NONE
    return text.share(seen["recall"])


def seconds(row: Mapping[str, Any]) -> str:
    """The augmentations' own time for an answer, on average."""
    return text.duration((row["cost"]["rewriting"] or {}).get("seconds"))


def flat(row: Mapping[str, Any]) -> dict[str, Json]:
    """The same as numbers, for CSV."""
    seen, cost = row.get("evidence") or {}, row["cost"]["rewriting"] or {}
    lost = seen.get("lost") or {}
    return {
        "evidence_recall": seen.get("recall"),
        **{f"lost_by_{name}": lost.get(name) for name in ("retrieval", "truncation", "model")},
        **{f"rewriting_{name}": cost.get(name) for name in ("seconds", "calls", "read_tokens", "cost")},
    }
