"""Streaming RAG: what is kept and what leaves, sizes, and replies that name nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st
from loom_accel_streaming_rag.plugin import StreamingRAGOptions
from loom_accel_streaming_rag.strategy import StreamingRAG, chosen

from loom_core.api import Generation, ModelCard, Prompt, Response, Timing, Turn, segment
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import n_tokens

CARD = ModelCard(name="toy", path="toy", digest="d", window=3000, tokenizer=ToyTokenizer())
TEXT = "".join(f"Sentence number {i:03d} says nothing at all. " for i in range(100))


def turn(text: str = TEXT, max_tokens: int = 20) -> Turn:
    """Instruction, context, question and prefill."""
    parts = (segment("instruction", "Read.\n"), segment("context", text), segment("question", "Who?"))
    prompt = Prompt(segments=(segment("system", "Be brief."), *parts, segment("prefill", "Answer:")))
    return Turn(prompt=prompt, generation=Generation(max_tokens=max_tokens, stop=("\n",)))


def drive(options: StreamingRAGOptions, replies: Sequence[str], card: ModelCard = CARD, text: str = TEXT) -> list[Turn]:
    """The turns asked; the last reply is repeated."""
    strategy, asked = StreamingRAG(options), list[Turn]()
    with strategy.open(card):
        turns = strategy.solve(turn(text))
        try:
            asked.append(next(turns))
            while True:
                timing = Timing(queued=0.0, started=0.0, first_token=0.0, ended=0.0)
                said = replies[min(len(asked), len(replies)) - 1]
                asked.append(turns.send(Response(key="k", text=said, finish="stop", n_in=1, n_out=1, timing=timing)))
        except StopIteration:
            return asked


SMALL = StreamingRAGOptions(window=900, passage=100, buffer=210)


def test_named_passages_are_kept_whole_and_in_order_and_the_oldest_leave() -> None:
    asked = drive(SMALL, ["2, 1", "none", "1"])
    assert len(asked) >= 6 and not any(call.augment for call in asked)
    first = TEXT[: TEXT.index("Sentence number 002")], TEXT[: TEXT.index("Sentence number 004")]
    kept = first[0], first[1].removeprefix(first[0])
    assert all(piece in asked[1].prompt.text and piece in asked[2].prompt.text for piece in kept)
    assert kept[0] not in asked[3].prompt.text and kept[1] in asked[3].prompt.text
    final = asked[-1].prompt
    pieces = final.context.split("\n\n")
    assert len(pieces) == 2 and all(piece in TEXT for piece in pieces) and len("".join(pieces)) <= SMALL.buffer
    assert asked[-1].generation == turn().generation
    assert [s for s in final.segments if s.kind != "context"] == [
        s for s in turn().prompt.segments if s.kind != "context"
    ]


def test_replies_without_a_passage_s_number_keep_nothing() -> None:
    assert drive(SMALL, ["none"])[-1].prompt.context == ""
    assert drive(SMALL, ["0, 77, 12345678901234567890"])[-1].prompt.context == ""
    assert chosen("[3] and 1, 3", 3) == [0, 2] and chosen("", 3) == []


@given(st.integers(3000, 6000), st.integers(40, 300))
@settings(max_examples=15, deadline=None)
def test_no_call_is_larger_than_the_model_s_window(window: int, passage: int) -> None:
    card = replace(CARD, window=window)
    options = StreamingRAGOptions(passage=passage, buffer=400)
    for call in drive(options, [", ".join(map(str, range(1, 99)))], card):
        assert n_tokens(call.prompt, card.tokenizer, chat="template") + call.generation.max_tokens <= window


def test_a_buffer_smaller_than_a_passage_is_refused() -> None:
    for wrong in ({"buffer": 50}, {"window": 60}):
        with pytest.raises(ValueError, match="smaller than one passage"):
            StreamingRAGOptions(**wrong)


def test_an_empty_context_is_one_plain_question() -> None:
    assert drive(SMALL, ["x"], text=" ") == [turn(" ")]
