"""Registers `cakekv`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import AugmentationSpec, Budget, hookimpl, option


@dataclass(frozen=True)
class CakeKVOptions:
    """budget, window, kernel and gamma are the authors' defaults; they look tau1 and tau2 up per model and budget,
    with 1 for models that their table lacks."""

    budget: Budget = option(
        Budget(tokens=1024), help="slots kept per KV head, mean over the layers, window included: 1024, 4x, 0.25, 64MiB"
    )
    window: int = option(32, help="how many of the last prompt tokens observe, and are always kept", low=2)
    kernel: int = option(5, help="width of the average pooling that keeps neighbours together; odd", low=1)
    gamma: float = option(200.0, help="weight of the variance over the window in a token's score", low=0)
    tau1: float = option(1.0, help="temperature of the entropy in a layer's preference", low=1e-3)
    tau2: float = option(1.0, help="temperature of the variance in a layer's preference", low=1e-3)
    cascading: bool = option(
        True, help="true: earlier layers are cut again as later ones are read; false: all are cut after the last one"
    )

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} is even; a pooling centred on a token has an odd width")
        if self.budget.tokens is not None and self.budget.tokens < self.window:
            raise ValueError(
                f"budget={self.budget} is smaller than window={self.window}; the window is kept inside the budget"
            )


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `cakekv`."""
    return (
        AugmentationSpec(
            name="cakekv",
            version="1",
            summary="the layers share one budget: more for those whose attention is dispersed and shifts",
            factory="loom_accel_cakekv.method:CakeKV",
            kind="model",
            options=CakeKVOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=True,
            phase="prefill",
            source="Qin et al. 2025, CAKE, arXiv:2503.12491; antgroup/cakekv:cake/cake_cache.py:CakeprefillKVCache, "
            "cake/utils.py:adjust_budgets and calculate_entropy, cake/model/modify_llama.py",
            oracle="loom_accel_cakekv.oracle:options",
            status="never run on a GPU",
        ),
    )
