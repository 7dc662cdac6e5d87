"""What answers say about the endpoint: prompts that were cut behind loom's back, thinking that was not split off."""

from __future__ import annotations

from typing import Any

import pytest
from loom_report.ledger import Answer, Ledger, Question, call_from
from loom_report.render.doubts import doubts

from loom_core.run.refusals import why_over, window_hint

TIMING = {"started": 0.0, "ended": 1.0}


def ledger(*rows: tuple[int, int], thinking: str | None = None, **record: Any) -> Ledger:
    """Answers to prompts of (planned length, counted tokens)."""
    made = Ledger({"config": {"thinking": thinking}})
    for number, (length, n_in) in enumerate(rows):
        question = Question(number, "t", f"q{number}", "all", length, None, None)
        call = call_from({"text": "42", "finish": "stop", "timing": TIMING, "n_in": n_in, **record})
        made.answers.setdefault(("t", "all", "dense"), []).append(
            Answer(f"k{number}", question, 0, "answered", (call,))
        )
    return made


CUT = ((4000, 4094), (16000, 4096), (16100, 4096), (24000, 4096))


def test_unlike_prompts_of_one_count_were_cut() -> None:
    (banner,) = doubts(ledger(*CUT))
    assert banner["kind"] == "error"
    assert "3 prompts of 16000 to 24000 tokens were all counted as 4096" in banner["text"]


@pytest.mark.parametrize(
    "made",
    [
        ledger(*CUT, n_dropped=5),
        ledger(*CUT[:3]),
        ledger((4000, 4096), (4100, 4096), (4200, 4096)),
        ledger((16000, 4096), (24000, 4096), (20000, 4096), (30000, 30000)),
        ledger((20, 31), (30, 31), (40, 31)),
        ledger((16000, 0), (24000, 0), (30000, 0)),
        ledger(),
    ],
)
def test_prompts_that_loom_cut_or_that_are_alike_are_no_proof(made: Ledger) -> None:
    assert list(doubts(made)) == []


@pytest.mark.parametrize("text", ["<think>a</think>b", "a</think>b", "[THINK]a[/THINK]b"])
def test_undeclared_marks_are_told(text: str) -> None:
    (banner,) = doubts(ledger((9, 9), (9, 9), text=text))
    assert banner["text"].startswith("2 of 2 answers hold marks of thinking")


def test_declared_marks_that_never_occur_are_told() -> None:
    (banner,) = doubts(ledger((9, 9), thinking="[THINK],[/THINK]"))
    assert "No answer holds the marks of thinking [THINK],[/THINK]" in banner["text"]
    assert list(doubts(ledger((9, 9), thinking="[THINK],[/THINK]", reasoning="Hm."))) == []


def test_a_refusal_of_long_prompts_names_the_answer_and_a_scaled_window() -> None:
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    plan: dict[str, Any] = {
        "model": {"window": 4096, "facts": {}},
        "overlength": {"longest": 4090},
        "tasks": [{"generation": {"max_tokens": 16}}],
    }
    assert "not with up to 16 tokens of answer" in why_over(plan) and window_hint(plan) == ""
    plan |= {"model": {"window": 32768, "facts": {"rope": rope}}, "overlength": {"longest": 65000}}
    assert "tokens of answer" not in why_over(plan)
    assert "yarn × 4 over 32768: --model-option window=131072" in window_hint(plan)
