"""The contract of KV-cache methods: policies, codecs, pickers, and the cache that a server hosts them with.

A method's plugin imports from here and nowhere deeper; its tests also use `loom_kv.testing`. Needs torch alone.
"""

from __future__ import annotations

from loom_kv.attention import attend_many
from loom_kv.codec import Codec, HeldView
from loom_kv.grouped import GroupedStore
from loom_kv.picker import Picker
from loom_kv.policy import Policy
from loom_kv.pruned import ChannelPrunedStore
from loom_kv.quantise import Format
from loom_kv.roles import Merges, ObservesQueries, SharesHeads, SharesLayers, StepsDecode
from loom_kv.rope import Rope
from loom_kv.scores import group_reduce, observed, pool, window_attention
from loom_kv.session import Session
from loom_kv.stacking import compose
from loom_kv.store import DenseStore, Store
from loom_kv.views import Allotment, Geometry, LayerView, Merge, Need, QueryChunk, StepView, Stream
from loom_kv.window import WindowPolicy

__version__ = "0.1.0"

__all__ = [
    "Allotment",
    "ChannelPrunedStore",
    "Codec",
    "DenseStore",
    "Format",
    "Geometry",
    "GroupedStore",
    "HeldView",
    "LayerView",
    "Merge",
    "Merges",
    "Need",
    "ObservesQueries",
    "Picker",
    "Policy",
    "QueryChunk",
    "Rope",
    "Session",
    "SharesHeads",
    "SharesLayers",
    "StepView",
    "StepsDecode",
    "Store",
    "Stream",
    "WindowPolicy",
    "attend_many",
    "compose",
    "group_reduce",
    "observed",
    "pool",
    "window_attention",
]
