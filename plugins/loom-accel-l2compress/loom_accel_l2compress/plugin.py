"""Registers `l2compress`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.hookspecs import hookimpl
from loom_core.options import option
from loom_core.specs import AugmentationSpec
from loom_core.types import Budget


@dataclass(frozen=True)
class L2CompressOptions:
    """skip_layers as in the paper; prune_after is 2048 in the authors' code, here a budget acts on every prompt."""

    budget: Budget = option(
        Budget(tokens=2048), help="slots kept per KV head of the compressed layers: 1024, 4x, 0.25, 64MiB"
    )
    skip_layers: tuple[int, ...] = option((0, 1), help="layers that keep everything: {0,1}, or {} for none", low=0)
    prune_after: int = option(0, help="prompts of fewer tokens are left alone (the authors' code: 2048)", low=0)
    rounding: Literal["floor", "ceil"] = option(
        "floor", help="of a budget given as a ratio: floor, as in all of loom, or ceil, as in the authors' code"
    )


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
            source="Devoto et al. 2024, A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression, "
            "arXiv:2406.11430; alessiodevoto/l2compress:cache.py:l2_compress; NVIDIA/kvpress KnormPress "
            "(skip_layers={})",
            oracle="loom_accel_l2compress.oracle:options",
            status="never run on a GPU",
        ),
    )
