"""L-Eval: 20 tasks on long documents, several questions a document.

`plugin` registers it; `benchmark` reads its samples; `wording` and `official` give its prompts; `table` its tables.
"""

from __future__ import annotations

__version__ = "0.1.0"
