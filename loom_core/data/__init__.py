"""Pinned files of others: where they lie, how they come here, how they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom_core.contract.lazy import lazily

if TYPE_CHECKING:
    from loom_core.data.access import DataDir as DataDir, Unavailable as Unavailable, read_pins as read_pins

__getattr__, __dir__, __all__ = lazily(__name__, {"loom_core.data.access": "DataDir Unavailable read_pins"})
