"""Registers the method `vatp`: its options and what it promises."""

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import AugmentationSpec, Budget, hookimpl, option


@dataclass(frozen=True)
class VATPOptions:
    """How much stays, who observes, and what is never dropped."""

    budget: Budget = option(Budget(tokens=1024), help="slots kept per KV head: 1024, 4x, 0.25, 64MiB")
    window: int = option(16, help="how many of the last prompt tokens observe, and are always kept", low=1)
    sinks: int = option(4, help="tokens at the start that are always kept", low=0)


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """A model augmentation: it needs a model that runs in this process."""
    return (
        AugmentationSpec(
            name="vatp",
            version="1",
            summary="keep the tokens whose attention times value norm is largest",
            factory="loom_accel_vatp.method:VATP",
            kind="model",
            options=VATPOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            query_aware=True,
            shares_prefix=True,
            source="Guo et al. 2024, arXiv:2406.12335",
        ),
    )
