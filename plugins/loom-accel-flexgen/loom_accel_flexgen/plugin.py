"""Registers `flexgen`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import AugmentationSpec, hookimpl, option


@dataclass(frozen=True)
class FlexGenOptions:
    """The default is that of the authors' cache compression."""

    group: int = option(64, help="channels of a token that share a scale; even, and a divisor of the head size", low=2)

    def __post_init__(self) -> None:
        if self.group % 2:
            raise ValueError(f"group={self.group} is odd, so its codes do not fill whole bytes")


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `flexgen`."""
    return (
        AugmentationSpec(
            name="flexgen",
            version="1",
            summary="keys and values quantised per token in 4 bits, the newest token too",
            factory="loom_accel_flexgen.method:FlexGen",
            kind="model",
            options=FlexGenOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            phase="both",
            shares_prefix=True,
            source="Sheng et al. 2023, FlexGen, arXiv:2303.06865; FMInference/FlexLLMGen:flexllmgen/compression.py"
            ":TorchCompressedDevice.compress, flexllmgen/flex_opt.py (4 bits, groups of 64 along the head)",
            oracle="loom_accel_flexgen.oracle:options",
            status="never run on a GPU; no fused kernel: a layer is decoded at each step",
        ),
    )
