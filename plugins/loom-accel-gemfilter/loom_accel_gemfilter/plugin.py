"""Registers `gemfilter`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, Budget, hookimpl, option


@dataclass(frozen=True)
class GemFilterOptions:
    """Defaults are those of the authors' find_context; the layer is theirs for Llama-3.1-8B, in proportion."""

    budget: Budget = option(Budget(tokens=1024), help="prompt tokens that the whole model reads: 1024, 4x, 0.25")
    layer: int | None = option(
        None, help="layer that picks, from 0; none = 13 of every 32, the authors' for Llama-3.1-8B", low=0
    )
    kernel: int = option(5, help="width of the pooling that keeps neighbours together; odd", low=1)
    pooling: Literal["avg", "max"] = option("avg", help="how neighbouring scores are pooled")

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} is even; a pooling centred on a token has an odd width")


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `gemfilter`."""
    return (
        AugmentationSpec(
            name="gemfilter",
            version="1",
            summary="an early layer's last query picks prompt tokens; the whole model reads only these, from the start",
            factory="loom_accel_gemfilter.method:GemFilter",
            kind="model",
            options=GemFilterOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=True,
            phase="prefill",
            source="Shi et al. 2024, Discovering the Gems in Early Layers, arXiv:2409.17422; SalesforceAIResearch/"
            "GemFilter:my_baseline/GemFilter/gem_filter_utils.py:find_context",
            oracle="loom_accel_gemfilter.oracle:options",
            status="never run on a GPU",
        ),
    )
