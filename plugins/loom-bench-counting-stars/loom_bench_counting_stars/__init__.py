"""Counting-Stars: many counts scattered over a long text, to be collected in one list."""

from __future__ import annotations

__version__ = "0.1.0"
