"""The protocol context-only before any model: which prompts it has no meaning for; budgets in three units."""

from __future__ import annotations

import pytest
from loom_report.render.budgets import budgets

from loom_core.api import Prompt, SegmentKind, segment
from loom_core.contract.prompt import unfit_for_context_only


@pytest.mark.parametrize(
    ("kinds", "why"),
    [
        (("context", "question"), ""),
        (("system", "instruction", "context", "instruction", "question", "prefill"), ""),
        (("context", "context", "question"), ""),
        (("question", "context"), "question tokens come before the context"),
        (("context", "question", "context", "question"), "question tokens come before the context"),
        (("instruction", "question"), "the prompt has no context"),
    ],
)
def test_which_prompts_can_be_compressed_before_their_question(kinds: tuple[SegmentKind, ...], why: str) -> None:
    assert unfit_for_context_only(Prompt(segments=tuple(segment(kind, "x") for kind in kinds))) == why


def test_budgets_stand_in_three_units_asked_and_held() -> None:
    held = {"tokens_held": 40.0, "kept": 0.25, "bytes_held": 41000, "bytes_dense": 160000}
    asked = {"tokens_asked": 40, "kept_asked": 0.25, "bytes_asked": 40960}
    none = {"tokens_held": 160, "kept": 1.0, "bytes_held": 160000, **dict.fromkeys(asked)}
    rows = [
        {"task": "t", "level": None, "arm": arm, "cost": {"kv": kv}}
        for arm, kv in (("dense", none), ("snapkv", {**held, **asked}), ("api", None))
    ]
    table = budgets({"totals": rows}, {"name": "t"})
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["dense", "–", "–", "–", "160", "100 %", "160 kB"],
        ["snapkv", "40", "25 %", "41.0 kB", "40", "25 %", "41.0 kB"],
    ]
    assert budgets({"totals": rows[:1]}, {"name": "t"}) is None
