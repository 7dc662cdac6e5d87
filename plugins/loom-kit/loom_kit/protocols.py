"""Which optional parts of its contract a plugin implements, for readers of `loom check`. Judges nothing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from loom_core.contract.protocols import BenchmarkBase
from loom_core.contract.specs import AugmentationSpec, BenchmarkSpec, MetricSpec, ServerSpec

OF_A_BENCHMARK = ("follow_up", "score", "score_group", "aggregate")
LOOKED_FOR = ("sources", "score_gold")


def implements(spec: Any, factory: Any) -> tuple[str, ...]:
    """The optional methods and declarations of a registered thing; factory: what its spec names, imported."""
    return tuple(_implemented(spec, factory))


def _implemented(spec: Any, factory: Any) -> Iterator[str]:
    match spec:
        case BenchmarkSpec():
            for name in OF_A_BENCHMARK:
                if getattr(factory, name, None) not in (None, getattr(BenchmarkBase, name)):
                    yield name
            yield from (name for name in LOOKED_FOR if hasattr(factory, name))
            yield from (name for name in ("parity", "answers") if getattr(spec, name))
        case ServerSpec():
            yield from (name for name in ("check_arm",) if hasattr(factory, name))
            yield from (name for name in ("oracle", "kit") if getattr(spec, name))
            yield from sorted(spec.capabilities)
        case MetricSpec():
            if inspect.isgeneratorfunction(getattr(factory, "score", None)):
                yield "asks a judge"
        case AugmentationSpec():
            if spec.kind == "strategy" and hasattr(factory, "open"):
                yield "open"
            declared = ("query_aware", "extends_context", "shares_prefix", "retrieval", "stands_on", "oracle")
            yield from (name for name in declared if getattr(spec, name))
