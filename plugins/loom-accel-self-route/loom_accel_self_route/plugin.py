"""Registers `self-route`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import AugmentationSpec, hookimpl, option


@dataclass(frozen=True)
class SelfRouteOptions:
    """Which retriever the first call reads from, where the arm names none."""

    retriever: str = option("bm25", help="retriever with its defaults; for its options write bm25:k=10+self-route")


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The strategy `self-route`."""
    return (
        AugmentationSpec(
            name="self-route",
            version="2",
            summary="retrieved chunks first; the whole context only where the model says that they do not answer",
            factory="loom_accel_self_route.strategy:SelfRoute",
            kind="strategy",
            options=SelfRouteOptions,
            query_aware=True,
            phase="prompt",
            stands_on="retriever",
            source="Li et al. 2024, Retrieval Augmented Generation or Long-Context LLMs?, arXiv:2407.16833, section 4; "
            "loom's own wording of the request",
        ),
    )
