"""BABILong: short stories of facts, spread over a long text, and a question about them."""

from __future__ import annotations

__version__ = "0.1.0"
