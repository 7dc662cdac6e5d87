"""What plugin authors and loom's own tests share: doubles, a toy tokenizer, the conformance kit, and gold rows."""

from __future__ import annotations

from loom_kit.gold import agrees, score_gold_row

__all__ = ["agrees", "score_gold_row"]
