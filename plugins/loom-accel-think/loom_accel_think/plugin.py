"""Registers `think`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, hookimpl, option


@dataclass(frozen=True)
class ThinKOptions:
    """Defaults are those of the authors' evaluation scripts."""

    ratio: float = option(0.4, help="share of the key channels that is dropped, rounded down", low=0.0)
    recent: int = option(32, help="newest prompt tokens whose keys keep all channels", low=0)
    window: int = option(32, help="how many of the last queries of the prompt weigh the channels", low=1)
    order: Literal["position", "rank"] = option(
        "position",
        help="which kept tokens are the newest: by position, or by the order in which the authors' SnapKV leaves them "
        "(best score first, its window last)",
    )

    def __post_init__(self) -> None:
        if self.ratio >= 1:
            raise ValueError(f"ratio={self.ratio} would drop every channel")


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `think`."""
    return (
        AugmentationSpec(
            name="think",
            version="1",
            summary="drop the key channels that weigh least with the last queries of the prompt; values stay whole",
            factory="loom_accel_think.method:ThinK",
            kind="model",
            options=ThinKOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=True,
            phase="prefill",
            shares_prefix=True,
            source="Xu et al. 2024, ThinK, arXiv:2407.21018; SalesforceAIResearch/ThinK:ThinK_eager/src/"
            "kv_pruning_utils.py:key_pruner_query_driven; group reduction as in NVIDIA/kvpress",
            oracle="loom_accel_think.oracle:options",
            status="never run on a GPU",
        ),
    )
