"""A benchmark beside its authors' own program; what benchmarks bring for it (`Parity`) is imported from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom_core.contract.lazy import lazily

if TYPE_CHECKING:
    from loom_core.serving.answering import answer as answer
    from loom_parity.contract import (
        Case as Case,
        Parity as Parity,
        ParityContext as ParityContext,
        answer_variants as answer_variants,
    )
    from loom_parity.published_cells import Cell as Cell
    from loom_parity.tokenizers import TOKENIZERS as TOKENIZERS
    from loom_parity.upstream import module as module, stand_ins as stand_ins

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "loom_core.serving.answering": "answer",
        "loom_parity.contract": "Case Parity ParityContext answer_variants",
        "loom_parity.published_cells": "Cell",
        "loom_parity.tokenizers": "TOKENIZERS",
        "loom_parity.upstream": "module stand_ins",
    },
)
