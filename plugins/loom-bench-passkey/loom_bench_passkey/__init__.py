"""The passkey needle test: a number hidden in filler text, asked for at the end."""

from __future__ import annotations

__version__ = "0.1.0"
