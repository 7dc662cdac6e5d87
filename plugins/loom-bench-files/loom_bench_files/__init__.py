"""Benchmarks without code, for loom: a TOML description beside JSONL records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom_core.api import lazily

if TYPE_CHECKING:
    from loom_bench_files.description import described as described

__getattr__, __dir__, __all__ = lazily(__name__, {"loom_bench_files.description": "described"})
