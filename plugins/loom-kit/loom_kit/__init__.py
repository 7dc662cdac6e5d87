"""What plugin authors and loom's own tests share: the conformance kit, toy tokenizers, made-up runs, gold rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom_core.contract.lazy import lazily

if TYPE_CHECKING:
    from loom_kit.conformance import Given as Given, check_package as check_package
    from loom_kit.gold import agrees as agrees, score_gold_row as score_gold_row
    from loom_kit.rows import NotChecked as NotChecked, Row as Row, attempt as attempt

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "loom_kit.conformance": "Given check_package",
        "loom_kit.gold": "agrees score_gold_row",
        "loom_kit.rows": "NotChecked Row attempt",
    },
)
