"""Chain-of-Agents: calls and their order, what each sees, sizes, and contexts that cannot be read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st
from loom_accel_chain_of_agents.plugin import ChainOfAgentsOptions
from loom_accel_chain_of_agents.strategy import NOTES, ChainOfAgents

from loom_core.api import Generation, ModelCard, ModelError, Prompt, Response, Timing, Turn, segment
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import n_tokens

CARD = ModelCard(name="toy", path="toy", digest="d", window=3000, tokenizer=ToyTokenizer())
TEXT = "".join(f"Sentence number {i:03d} says nothing at all. " for i in range(100))


def turn(text: str = TEXT, max_tokens: int = 20) -> Turn:
    """Instruction, context, question and prefill."""
    parts = (segment("instruction", "Read.\n"), segment("context", text), segment("question", "Who?"))
    prompt = Prompt(segments=(segment("system", "Be brief."), *parts, segment("prefill", "Answer:")))
    return Turn(prompt=prompt, generation=Generation(max_tokens=max_tokens, stop=("\n",)))


def drive(strategy: ChainOfAgents, source: Turn, card: ModelCard = CARD) -> tuple[list[Turn], str]:
    """The turns asked, and the answer; reply i is "note i"."""
    asked: list[Turn] = []
    with strategy.open(card):
        turns = strategy.solve(source)
        try:
            asked.append(next(turns))
            while True:
                timing = Timing(queued=0.0, started=0.0, first_token=0.0, ended=0.0)
                said = f"note {len(asked)}"
                asked.append(turns.send(Response(key="k", text=said, finish="stop", n_in=1, n_out=1, timing=timing)))
        except StopIteration as end:
            return asked, str(end.value)


def test_workers_read_the_windows_in_order_and_the_manager_answers() -> None:
    asked, answer = drive(ChainOfAgents(ChainOfAgentsOptions(window=1200, summary=50)), turn())
    assert len(asked) == 5 and answer == "note 5"
    assert "".join(t.prompt.context for t in asked[:-1]) == TEXT
    for number, worker in enumerate(asked[:-1], 1):
        assert f"note {number - 1}" in worker.prompt.text or number == 1
        assert f"note {number}" not in worker.prompt.text
        assert "Who?" in worker.prompt.text and worker.prompt.segments[0].text == "Be brief."
        assert worker.generation.max_tokens == 50 and worker.generation.stop == () and not worker.augment
    manager = asked[-1]
    assert manager.prompt.context == f"{NOTES}note 4\n" and manager.generation == turn().generation
    others = [s for s in manager.prompt.segments if s.kind != "context"]
    assert others == [s for s in turn().prompt.segments if s.kind != "context"]


@given(st.integers(1500, 5000), st.integers(1, 120))
@settings(max_examples=15, deadline=None)
def test_no_call_is_larger_than_the_model_s_window(window: int, summary: int) -> None:
    card = replace(CARD, window=window)
    asked, _ = drive(ChainOfAgents(ChainOfAgentsOptions(summary=summary)), turn(), card)
    for call in asked:
        assert n_tokens(call.prompt, card.tokenizer, chat="template") + call.generation.max_tokens <= window


def test_what_cannot_be_read_in_windows_says_why() -> None:
    with pytest.raises(ModelError, match="not known"):
        drive(ChainOfAgents(ChainOfAgentsOptions()), turn(), replace(CARD, window=None))
    with pytest.raises(ModelError, match="no room"):
        drive(ChainOfAgents(ChainOfAgentsOptions()), turn(), replace(CARD, window=900))
    with pytest.raises(ModelError, match="calls"):
        drive(ChainOfAgents(ChainOfAgentsOptions(window=16)), turn())


def test_an_empty_context_is_one_plain_question() -> None:
    asked, answer = drive(ChainOfAgents(ChainOfAgentsOptions()), turn(""))
    assert asked == [turn("")] and answer == "note 1"
