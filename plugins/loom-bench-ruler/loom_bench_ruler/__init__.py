"""RULER: thirteen synthetic tasks at any length, by the authors' rules or with loom's own text."""

from __future__ import annotations

__version__ = "0.1.0"
