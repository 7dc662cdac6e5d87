"""Self-Route: one call where the first reply answers, two where it declines."""

from __future__ import annotations

import pytest
from loom_accel_self_route.plugin import SelfRouteOptions
from loom_accel_self_route.strategy import REQUEST, SelfRoute, declines, with_request
from loom_rag.retrieval import query_of

from loom_core.api import Generation, Prompt, Response, Timing, Turn, UsageError, installed, parse_arms, segment

TURN = Turn(
    prompt=Prompt(
        segments=(
            segment("instruction", "Read.\n"),
            segment("context", "A long text."),
            segment("question", "Who?"),
            segment("prefill", "Answer:"),
        )
    ),
    generation=Generation(max_tokens=4),
)


def said(text: str) -> Response:
    """A response with this text."""
    timing = Timing(queued=0.0, started=0.0, first_token=0.0, ended=0.0)
    return Response(key="k", text=text, finish="stop", n_in=1, n_out=1, timing=timing)


def test_one_that_answers_is_asked_once() -> None:
    turns = SelfRoute(SelfRouteOptions()).solve(TURN)
    first = next(turns)
    assert first.augment and first.generation.max_tokens == 16
    with pytest.raises(StopIteration) as end:
        turns.send(said("Anna"))
    assert end.value.value == "Anna"


def test_one_that_declines_is_asked_again_with_the_whole_context() -> None:
    turns = SelfRoute(SelfRouteOptions()).solve(TURN)
    next(turns)
    second = turns.send(said("  Unanswerable."))
    assert second.prompt == TURN.prompt and second.generation == TURN.generation and not second.augment
    with pytest.raises(StopIteration) as end:
        turns.send(said("unanswerable"))
    assert end.value.value == "unanswerable", "there is no third call"


@pytest.mark.parametrize(
    ("reply", "declined"),
    [
        ("unanswerable", True),
        ("  **Unanswerable.**\n", True),
        ('"Unanswerable"', True),
        ("Answer: unanswerable", True),
        ("Unanswerable, the text is about ships.", True),
        ("Unanswerable because nothing names her.", True),
        ("The text does not name her.\n\nUnanswerable", True),
        ("The question is unanswerable based on the text.", True),
        (REQUEST, False),
        (REQUEST.replace("\n", " ").strip()[:-20], False),
        (f"{REQUEST}\nAnna", False),
        (f"You asked me to reply 'unanswerable'.{REQUEST}Anna", False),
        ("The text says 'unanswerable', and she is Anna.", False),
        ("unanswerable and nothing else.", False),
        ("Anna. The question is not unanswerable.", False),
        ("Anna", False),
        ("", False),
    ],
)
def test_only_the_replys_own_verdict_declines(reply: str, declined: bool) -> None:
    assert declines(reply) is declined


def test_an_echo_of_the_request_is_answered_once() -> None:
    turns = SelfRoute(SelfRouteOptions()).solve(TURN)
    next(turns)
    with pytest.raises(StopIteration) as end:
        turns.send(said(f"{REQUEST}\nAnna"))
    assert "Anna" in end.value.value


def test_the_request_stands_before_the_prefill_and_is_not_looked_for() -> None:
    prompt = with_request(TURN.prompt)
    assert [s.kind for s in prompt.segments] == ["instruction", "context", "question", "instruction", "prefill"]
    assert prompt.segments[3].text == REQUEST and query_of(prompt) == "Who?"


def test_the_arm_stands_on_a_retriever() -> None:
    catalog = installed()
    assert [part.text for part in parse_arms(["self-route"], catalog)[1].parts] == ["bm25", "self-route"]
    stacked = parse_arms(["bm25:k=2+self-route"], catalog)[1]
    assert [part.text for part in stacked.parts] == ["bm25:k=2", "self-route"]
    for wrong, why in (("self-route:retriever=truncate", "not a retriever"), ("self-route:retriever=bm26", "bm25")):
        with pytest.raises(UsageError) as error:
            parse_arms([wrong], catalog)
        assert why in str(error.value)
