"""What answers say about the endpoint or the settings rather than about the model: prompts that were cut behind loom's
back, thinking that was not split off. Reads ledger rows; knows no table and no page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from loom_report.ledger import Ledger
from loom_report.records import BannerRow

from loom_core.contract.types import Json

SHORTEST_CUT = 512
"""Tokens: below, prompts of different lengths may well be counted alike."""
FEWEST_ALIKE = 3
UNLIKE = 1.25
"""How many times longer the longest of prompts that are counted alike must be than the shortest."""


def doubts(ledger: Ledger) -> Iterator[BannerRow]:
    """Banners about prompts and thinking."""
    yield from _cut_prompts(ledger)
    yield from _thinking(ledger, ledger.plan.get("config") or {})


def _cut_prompts(ledger: Ledger) -> Iterator[BannerRow]:
    """Prompts of very different length that were all counted as the run's largest: they were cut, for certain."""
    lengths: dict[int, list[int]] = {}
    for rows in ledger.answers.values():
        for answer in rows:
            call = answer.calls[0] if answer.calls else None
            if (
                call is None
                or call.failure is not None
                or call.n_dropped
                or call.rewriting
                or not answer.question.length
            ):
                continue
            lengths.setdefault(call.n_in, []).append(answer.question.length)
    most = max(lengths, default=0)
    alike = lengths.get(most, [])
    if most >= SHORTEST_CUT and len(alike) >= FEWEST_ALIKE and max(alike) > UNLIKE * min(alike):
        text = (
            f"The endpoint cut prompts: {len(alike)} prompts of {min(alike)} to {max(alike)} tokens were all counted "
            f"as {most}. Their scores are of what was left of them: raise the endpoint's window and give window=…"
        )
        yield {"kind": "error", "text": text}


def _thinking(ledger: Ledger, config: Mapping[str, Json]) -> Iterator[BannerRow]:
    """Marks of thinking in answers where none are declared, and declared marks that no answer holds."""
    answered = [a for rows in ledger.answers.values() for a in rows if a.state == "answered" and a.calls]
    if declared := config.get("thinking"):
        if answered and not any(call.reasoned for answer in answered for call in answer.calls):
            text = (
                f"No answer holds the marks of thinking {declared}: whatever the model thought is scored as its answer."
            )
            yield {"kind": "warning", "text": text}
        return
    if n := sum(any(call.marked for call in answer.calls) for answer in answered):
        text = (
            f"{n} of {len(answered)} answers hold marks of thinking, which are scored as part of the answer: declare "
            "them, for example --thinking '<think>,</think>' --thinking-budget 4096."
        )
        yield {"kind": "warning", "text": text}
