"""Needle in a haystack: a fact hidden in long text, over a grid of lengths and depths."""

from __future__ import annotations

__version__ = "0.1.0"
