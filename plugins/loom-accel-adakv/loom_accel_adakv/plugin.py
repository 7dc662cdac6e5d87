"""Registers `adakv`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, Budget, hookimpl, option


@dataclass(frozen=True)
class AdaKVOptions:
    """window, kernel, pooling and floor as the authors run it; sinks to epsilon are those of kvpress's base score."""

    budget: Budget = option(
        Budget(tokens=1024), help="slots kept per KV head, mean over a layer's heads: 1024, 4x, 0.25, 64MiB"
    )
    base: Literal["snapkv", "expected-attention"] = option(
        "snapkv", help="the score that is shared out: of the window's attention, or of expected future queries"
    )
    rule: Literal["official", "kvpress"] = option(
        "official", help="official: shares mixed with the floor, each head rounded; kvpress: floor first, then exact"
    )
    floor: float = option(0.2, help="share of the budget that every head is sure of", low=0, high=1)
    normalize: bool = option(
        False, help="rule=official: weigh a head by how much of its score its best slots hold (authors' option)"
    )
    window: int = option(32, help="base=snapkv: how many of the last prompt tokens observe; always kept", low=1)
    kernel: int = option(7, help="base=snapkv: width of the pooling that keeps neighbours together; odd", low=1)
    pooling: Literal["avg", "max"] = option("max", help="base=snapkv: how neighbouring scores are pooled")
    group: Literal["mean", "max"] = option("mean", help="base=snapkv: how the query heads of one KV head are reduced")
    pool: Literal["before", "after"] = option("after", help="base=snapkv: pool before or after the group reduction")
    sinks: int = option(4, help="base=expected-attention: tokens at the start that are always kept", low=0)
    future: int = option(512, help="base=expected-attention: positions to come that queries are expected at", low=1)
    covariance: bool = option(True, help="base=expected-attention: use the covariance of the queries too")
    value_norm: bool = option(True, help="base=expected-attention: multiply by the norm of the value")
    epsilon: float = option(0.0, help="base=expected-attention: added before the value's norm", low=0)

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} is even; a pooling centred on a token has an odd width")
        if self.rule == "kvpress" and self.normalize:
            raise ValueError("normalize=true belongs to rule=official; kvpress compares scores as they are")
        if self.epsilon and not self.value_norm:
            raise ValueError(f"epsilon={self.epsilon:g} has no effect with value_norm=false")
        if self.budget.tokens is not None and self.budget.tokens < self.protected:
            what = f"window={self.window}" if self.base == "snapkv" else f"sinks={self.sinks}"
            raise ValueError(f"budget={self.budget} is smaller than {what}, which is kept inside the budget")

    @property
    def protected(self) -> int:
        """Slots that every head keeps whatever their score."""
        return self.window if self.base == "snapkv" else self.sinks


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The method `adakv`."""
    return (
        AugmentationSpec(
            name="adakv",
            version="1",
            summary="the KV heads of a layer share one budget: each keeps as many slots as it has among the best",
            factory="loom_accel_adakv.method:AdaKV",
            kind="model",
            options=AdaKVOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=True,
            phase="prefill",
            shares_prefix=True,
            source="Feng et al. 2024, Ada-KV, arXiv:2407.11550; FFY0/AdaKV and Zefan-Cai/KVCache-Factory:pyramidkv/"
            "pyramidkv_utils.py:AdaKVCluster.update_kv (rule=official); NVIDIA/kvpress AdaKVPress (rule=kvpress), "
            "ExpectedAttentionPress (base=expected-attention)",
            oracle="loom_accel_adakv.oracle:options",
            status="never run on a GPU",
        ),
    )
