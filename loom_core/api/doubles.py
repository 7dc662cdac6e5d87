"""Toy tokenizers, for tests and for comparisons that need none of a model. Part of loom's public interface."""

from __future__ import annotations

from loom_core.doubles.server import ToyTokenizer as ToyTokenizer, WordTokenizer as WordTokenizer
