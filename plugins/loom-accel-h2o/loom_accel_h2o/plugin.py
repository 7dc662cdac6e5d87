"""Registers `h2o`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, Budget, hookimpl, option


@dataclass(frozen=True)
class H2OOptions:
    """The default budget is the authors' runner's: 1024 heavy and 1024 recent tokens."""

    budget: Budget = option(
        Budget(tokens=2048), help="slots kept per KV head, heavy and recent ones: 1024, 4x, 0.25, 64MiB"
    )
    recent: int | None = option(
        None, help="how many of the newest tokens are always kept; none = half of the budget", low=1
    )
    form: Literal["decode", "oneshot"] = option(
        "decode",
        help="decode: the authors', scores go on and a slot is dropped at each step; oneshot: cut once, then grow",
    )
    stride: int = option(
        1, help="1: sums over all queries of the prompt, exactly; s: over every s-th one (approximate)", low=1
    )
    group: Literal["mean", "max"] = option("mean", help="how the query heads of one KV head are reduced")

    def __post_init__(self) -> None:
        if self.group == "max" and self.form == "decode":
            raise ValueError("group=max belongs to form=oneshot; while decoding, the sums of a group are added")
        if self.recent is not None and self.budget.tokens is not None and self.budget.tokens < self.recent:
            raise ValueError(
                f"budget={self.budget} is smaller than recent={self.recent}; those are kept inside the budget"
            )


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `h2o`."""
    return (
        AugmentationSpec(
            name="h2o",
            version="1",
            summary="keep the tokens that all queries so far attend to most, and the newest ones, at every step",
            factory="loom_accel_h2o.method:H2O",
            kind="model",
            options=H2OOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=True,
            phase="both",
            source="Zhang et al. 2023, H2O, arXiv:2306.14048; FMInference/H2O:h2o_hf/utils_real_drop/"
            "modify_llama.py:H2OKVCache_LayerWise (form=decode, stride=1); Zefan-Cai/KVCache-Factory:pyramidkv/"
            "pyramidkv_utils.py:H2OKVCluster.update_kv (form=oneshot); stride>1 is loom's approximation",
            oracle="loom_accel_h2o.oracle:options",
            status="never run on a GPU",
        ),
    )
