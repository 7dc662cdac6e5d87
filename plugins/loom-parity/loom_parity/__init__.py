"""Compares a benchmark with its authors' own program; what benchmarks bring for it (`Parity`) is imported from here."""

from loom_core.api.serving import answer
from loom_parity import upstream
from loom_parity.contract import Case, Parity, ParityContext, answer_variants
from loom_parity.published_cells import Cell
from loom_parity.upstream import module, stand_ins

__all__ = ["Case", "Cell", "Parity", "ParityContext", "answer", "answer_variants", "module", "stand_ins", "upstream"]
