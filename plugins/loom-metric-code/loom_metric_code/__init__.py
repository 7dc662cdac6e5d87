"""pass@k: a model's code, judged by its tests in confined processes."""

from __future__ import annotations

__version__ = "0.2.0"
