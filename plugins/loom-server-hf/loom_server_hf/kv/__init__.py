"""The public contract for KV-cache methods of the hf server. A method's plugin imports from here and nowhere deeper."""

from __future__ import annotations

from loom_server_hf.kv.policy import Allotment, Geometry, LayerView, Need, Policy, QueryChunk, Stream
from loom_server_hf.kv.scores import group_reduce, observed, pool, window_attention

__all__ = [
    "Allotment",
    "Geometry",
    "LayerView",
    "Need",
    "Policy",
    "QueryChunk",
    "Stream",
    "group_reduce",
    "observed",
    "pool",
    "window_attention",
]
