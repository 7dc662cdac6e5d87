"""LongBench v2: 503 multiple-choice questions on texts of 8 thousand to 2 million words.

`plugin` registers it; `benchmark` reads its samples and makes its table; `prompts` fills the authors' templates.
"""

from __future__ import annotations

__version__ = "0.1.0"
