"""Registers `streaming-rag`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import AugmentationSpec, hookimpl, option


@dataclass(frozen=True)
class StreamingRAGOptions:
    """How much is read at once and how much is kept, in tokens of the evaluated model."""

    window: int | None = option(
        None, help="most tokens of text read at once; none = what the model's window leaves", low=16
    )
    passage: int = option(100, help="most tokens of a passage, the unit that is kept or not", low=1)
    buffer: int = option(1024, help="most tokens of evidence kept; when it is full, the oldest passages leave", low=1)

    def __post_init__(self) -> None:
        if self.buffer < self.passage:
            raise ValueError(f"buffer={self.buffer} is smaller than one passage ({self.passage})")
        if self.window is not None and self.window < self.passage:
            raise ValueError(f"window={self.window} is smaller than one passage ({self.passage})")


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The strategy `streaming-rag`."""
    return (
        AugmentationSpec(
            name="streaming-rag",
            version="1",
            summary="loom's own definition: windows in order, the model picks passages into a fixed evidence buffer",
            factory="loom_accel_streaming_rag.strategy:StreamingRAG",
            kind="strategy",
            options=StreamingRAGOptions,
            query_aware=True,
            phase="prompt",
            extends_context=True,
            retrieval=True,
            source="loom: the literature names it without a definition; this one is written down in the README",
        ),
    )
