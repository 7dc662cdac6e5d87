"""Registers `kivi`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, hookimpl, option


@dataclass(frozen=True)
class KIVIOptions:
    """Group and window are the defaults of the authors' examples; of bits they use both."""

    bits: Literal["2", "4"] = option("2", help="bits of a key's or a value's element")
    group: int = option(32, help="tokens (keys) or channels (values) that share a scale; a multiple of 4", low=4)
    window: int = option(128, help="recent tokens that stay whole; keys leave it all at once", low=4)

    def __post_init__(self) -> None:
        if self.group % 4:
            raise ValueError(f"group={self.group} is not a multiple of 4, so its codes do not fill whole bytes")
        if self.window % self.group:
            raise ValueError(
                f"window={self.window} is not a multiple of group={self.group}; a window's keys are quantised at once"
            )


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `kivi`."""
    return (
        AugmentationSpec(
            name="kivi",
            version="1",
            summary="keys quantised per channel and values per token, in 2 or 4 bits; recent tokens stay whole",
            factory="loom_accel_kivi.method:KIVI",
            kind="model",
            options=KIVIOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            phase="both",
            shares_prefix=True,
            source="Liu et al. 2024, KIVI, arXiv:2402.02750; jy-yuan/KIVI:quant/new_pack.py (quantiser), "
            "models/llama_kivi.py (which tokens stay whole)",
            oracle="loom_accel_kivi.oracle:options",
            status="never run on a GPU; no fused kernel: a layer is decoded at each step",
        ),
    )
