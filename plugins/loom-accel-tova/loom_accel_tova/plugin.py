"""Registers `tova`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, Budget, hookimpl, option


@dataclass(frozen=True)
class TOVAOptions:
    """The paper has one parameter; `form` says whether slots are dropped while decoding, as there."""

    budget: Budget = option(
        Budget(tokens=2048), help="slots kept per KV head, the newest token included: 1024, 4x, 0.25, 64MiB"
    )
    form: Literal["decode", "prefill"] = option(
        "decode",
        help="decode: the paper's, one slot is dropped at each step; prefill: cut once, after the prompt, then grow",
    )


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `tova`."""
    return (
        AugmentationSpec(
            name="tova",
            version="2",
            summary="keep the tokens that the newest query attends to, at every step; one ranking a layer",
            factory="loom_accel_tova.method:TOVA",
            kind="model",
            options=TOVAOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=True,
            phase="both",
            shares_prefix=True,
            source="Oren et al. 2024, Transformers are Multi-State RNNs, arXiv:2401.06104; NVIDIA/kvpress TOVAPress "
            "(form=prefill)",
            oracle="loom_accel_tova.oracle:options",
            status="never run on a GPU",
        ),
    )
