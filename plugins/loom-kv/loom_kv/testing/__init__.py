"""The test kit of KV-cache methods: what every one must fulfil, on the models of whichever installed server hosts them.

`loom check` runs it whole (`kit`, `oracle`); tests of a method take from here what they need, and nothing deeper.
"""

from __future__ import annotations

from loom_kv.testing.checks import (
    CHECKS,
    rows_leave,
    u1_identity,
    u2_masked_dense,
    u4_batch,
    u5_chunks,
    u6_memory,
    u7_groups,
    u8_detach,
    u8_isolation,
)
from loom_kv.testing.codec_checks import CODEC_CHECKS, CodecSubject, c7_groups
from loom_kv.testing.host import Answer, Batch, Engine, Host, installed_host
from loom_kv.testing.kit import Kit
from loom_kv.testing.oracle import Oracle, OracleRow
from loom_kv.testing.sharing_checks import u9_context_only, u9_prefix
from loom_kv.testing.subject import (
    STEPS,
    Subject,
    Trace,
    assert_kept,
    fixed_tokens,
    kept_slots,
    toy_model,
    toy_prompts,
)
from loom_kv.testing.toy import toy_kept, toy_view

__all__ = [
    "CHECKS",
    "CODEC_CHECKS",
    "STEPS",
    "Answer",
    "Batch",
    "CodecSubject",
    "Engine",
    "Host",
    "Kit",
    "Oracle",
    "OracleRow",
    "Subject",
    "Trace",
    "assert_kept",
    "c7_groups",
    "fixed_tokens",
    "installed_host",
    "kept_slots",
    "rows_leave",
    "toy_kept",
    "toy_model",
    "toy_prompts",
    "toy_view",
    "u1_identity",
    "u2_masked_dense",
    "u4_batch",
    "u5_chunks",
    "u6_memory",
    "u7_groups",
    "u8_detach",
    "u8_isolation",
    "u9_context_only",
    "u9_prefix",
]
