"""LongBench: question answering, summaries, few-shot learning, retrieval and code, in English and Chinese.

`plugin` registers it; `benchmark` reads its samples; `settings` holds the facts of its tasks; `table` its tables.
"""

from __future__ import annotations

__version__ = "0.1.0"
