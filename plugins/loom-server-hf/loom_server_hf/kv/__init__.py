"""The public contract for KV-cache methods of the hf server. A method's plugin imports from here and nowhere deeper."""

from __future__ import annotations

from loom_server_hf.kv.codec import Codec, HeldView
from loom_server_hf.kv.grouped import GroupedStore
from loom_server_hf.kv.picker import Picker
from loom_server_hf.kv.policy import (
    Allotment,
    Geometry,
    LayerView,
    Merge,
    Need,
    Policy,
    QueryChunk,
    StepView,
    Stream,
)
from loom_server_hf.kv.pruned import ChannelPrunedStore
from loom_server_hf.kv.quantise import Format
from loom_server_hf.kv.scores import group_reduce, observed, pool, window_attention
from loom_server_hf.kv.store import Store
from loom_server_hf.kv.window import WindowPolicy

__all__ = [
    "Allotment",
    "ChannelPrunedStore",
    "Codec",
    "Format",
    "Geometry",
    "GroupedStore",
    "HeldView",
    "LayerView",
    "Merge",
    "Need",
    "Picker",
    "Policy",
    "QueryChunk",
    "StepView",
    "Store",
    "Stream",
    "WindowPolicy",
    "group_reduce",
    "observed",
    "pool",
    "window_attention",
]
