"""What plugin authors and loom's own tests share: the conformance kit, toy tokenizers, made-up runs, gold rows."""

from loom_kit.conformance import Given, check_package
from loom_kit.gold import agrees, score_gold_row
from loom_kit.rows import NotChecked, Row, attempt

__all__ = ["Given", "NotChecked", "Row", "agrees", "attempt", "check_package", "score_gold_row"]
