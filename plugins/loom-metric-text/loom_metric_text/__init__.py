"""Text metrics of long-context benchmarks, each under its own name and equal to its authors' scorer."""

from __future__ import annotations

__version__ = "0.1.0"
