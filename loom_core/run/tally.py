"""What is learnt about tasks while their samples stream by: counts, lengths, and why some were not taken."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from loom_core.contract.errors import LoomError
from loom_core.contract.types import BadRecord
from loom_core.run.sizes import Sizes


@dataclass
class Level:
    """The counts of one length level of a task."""

    n: int = 0
    n_over: int = 0
    tokens_min: int | None = None
    tokens_max: int | None = None

    def add(self, length: int, over: bool) -> None:
        """Count one sample of that many tokens."""
        self.n += 1
        self.n_over += over
        self.tokens_min = length if self.tokens_min is None else min(self.tokens_min, length)
        self.tokens_max = length if self.tokens_max is None else max(self.tokens_max, length)


@dataclass
class Tally:
    """What is learnt about the tasks while their samples stream by.

    unavailable: why a task's data is not here; refused: what its making, its prompts or the template raised. partial:
    tasks that raised after some of their samples had passed, which must not stay in the run folder.
    """

    levels: dict[str, dict[str, Level]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    refused: dict[str, LoomError] = field(default_factory=dict)
    partial: set[str] = field(default_factory=set)
    bos: dict[tuple[int, int], int] = field(default_factory=dict)
    longest: int = 0
    n_samples: int = 0
    n_over: int = 0
    n_refused: int = 0
    n_jobs: int = 0
    n_folded: int = 0
    n_control: int = 0
    over_example: str = ""
    estimated: bool = False
    extracts: set[str] = field(default_factory=set)
    bad: tuple[BadRecord, ...] = ()
    told: tuple[str, ...] = ()
    sizes: Sizes = field(default_factory=lambda: Sizes(None))

    def forget(self, before: Tally, name: str) -> None:
        """Everything as it was before this task, which has no part in the run."""
        partial = {*before.partial, *([name] if self.n_samples > before.n_samples else [])}
        for f in fields(self):
            setattr(self, f.name, getattr(before, f.name))
        self.partial, self.levels[name] = partial, {}
