"""pass@k: a model's code, run against its tests in a confined process."""

from __future__ import annotations

__version__ = "0.1.0"
