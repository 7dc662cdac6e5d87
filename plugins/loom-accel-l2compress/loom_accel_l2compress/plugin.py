"""Registers `l2compress`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, Budget, hookimpl, option


@dataclass(frozen=True)
class L2CompressOptions:
    """skip_layers as in the paper; prune_after is 2048 in the authors' code, here a budget acts on every prompt."""

    budget: Budget = option(
        Budget(tokens=2048), help="slots kept per KV head of the compressed layers: 1024, 4x, 0.25, 64MiB"
    )
    skip_layers: str = option("0-1", help="layers that keep everything: none, 0, 0-1, 0/3, 0-1/30-31")
    prune_after: int = option(0, help="prompts of fewer tokens are left alone (the authors' code: 2048)", low=0)
    rounding: Literal["floor", "ceil"] = option(
        "floor", help="of a budget given as a ratio: floor, as in all of loom, or ceil, as in the authors' code"
    )

    def __post_init__(self) -> None:
        if not re.fullmatch(r"none|\d+(-\d+)?(/\d+(-\d+)?)*", self.skip_layers):
            raise ValueError(f"skip_layers={self.skip_layers} is not a list of layers; write none, 0-1 or 0/3-5")
        for layers in self._ranges():
            if not layers:
                raise ValueError(f"skip_layers={self.skip_layers}: a range goes from the lower layer to the higher one")

    def _ranges(self) -> list[range]:
        if self.skip_layers == "none":
            return []
        ends = [part.partition("-") for part in self.skip_layers.split("/")]
        return [range(int(first), int(last or first) + 1) for first, _, last in ends]

    @property
    def skipped(self) -> frozenset[int]:
        """The layers that `skip_layers` names."""
        return frozenset(layer for layers in self._ranges() for layer in layers)


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `l2compress`."""
    return (
        AugmentationSpec(
            name="l2compress",
            version="1",
            summary="keep the prompt tokens whose keys have the smallest L2 norm, in each KV head",
            factory="loom_accel_l2compress.method:L2Compress",
            kind="model",
            options=L2CompressOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=False,
            phase="prefill",
            shares_prefix=True,
            source="Devoto et al. 2024, A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression, "
            "arXiv:2406.11430; alessiodevoto/l2compress:cache.py:l2_compress; NVIDIA/kvpress KnormPress "
            "(skip_layers=none)",
            oracle="loom_accel_l2compress.oracle:options",
            status="never run on a GPU",
        ),
    )
