"""Thinking models: a scripted reply is split, counted and scored on the rest; what does not end is an empty answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_core.config import RunConfig
from loom_core.errors import UsageError
from loom_core.thinking import UNFINISHED, Thinking, asked, declared
from loom_core.types import Generation, Response, Timing

THINKING = Thinking("<think>", "</think>", 100)
LIMITS = Generation(max_tokens=20)


def reply(text: str, finish: Any = "stop", reasoning: str | None = None) -> Response:
    timing = Timing(queued=0.0, started=0.0, first_token=None, ended=0.0)
    return Response(key="k", text=text, finish=finish, n_in=1, n_out=1, timing=timing, reasoning=reasoning)


@pytest.mark.parametrize(
    ("given_", "text", "reasoning", "unfinished"),
    [
        (reply("<think>first\nthen</think>\n\n42"), "42", "first\nthen", False),
        (reply("opened by the template</think>42"), "42", "opened by the template", False),
        (reply("42"), "42", None, False),
        (reply("<think>on and on", "length"), "", "on and on", True),
        (reply("on and on", "length"), "", "on and on", True),
        (reply("<think>on and on"), "", "on and on", True),
        (reply("<think>a</think>b</think>c"), "b</think>c", "a", False),
        (reply("<think>a</think>42", "length"), "42", "a", False),
        (reply("42", reasoning="by the server"), "42", "by the server", False),
        (reply("", "length", "by the server"), "", "by the server", True),
    ],
)
def test_a_reply_is_split(given_: Response, text: str, reasoning: str | None, unfinished: bool) -> None:
    found = THINKING.split(given_, LIMITS, len)
    assert (found.text, found.reasoning) == (text, reasoning)
    assert found.n_reasoning == (None if reasoning is None else len(reasoning))
    assert (UNFINISHED in found.notes) == unfinished


def test_stop_strings_are_of_the_answer_alone() -> None:
    limits = Generation(max_tokens=20, stop=("\n",))
    assert asked(limits).stop == () and THINKING.limits(limits).max_tokens == 120
    found = THINKING.split(reply("<think>a\nb</think>\n42\nand more"), THINKING.limits(limits), None)
    assert (found.text, found.reasoning, found.n_reasoning) == ("42", "a\nb", None)


@given(thought=st.text(max_size=40), rest=st.text(max_size=40))
def test_nothing_is_lost(thought: str, rest: str) -> None:
    found = THINKING.split(reply(f"<think>{thought}</think>{rest}"), LIMITS, len)
    if "</think>" not in thought:
        assert found.text == rest.lstrip() and found.reasoning == thought.strip()


@pytest.mark.parametrize("text", ["<think>", "a,b,c", ",", "<think>,"])
def test_bad_marks(text: str) -> None:
    with pytest.raises(UsageError, match="thinking"):
        RunConfig().merged({"thinking": text}, "test")


def test_the_settings() -> None:
    config = RunConfig().merged({"thinking": "<think>, </think>", "thinking_budget": "2k"}, "test")
    assert declared(config.thinking, config.thinking_budget) == Thinking("<think>", "</think>", 2048)
    assert declared(None, 5) is None and config.identity["thinking"] == "<think>,</think>"
