"""How a judge's replies are taken: limits, thinking, what enters a key; options by their names."""

from __future__ import annotations

from dataclasses import fields

import pytest

from loom_core.api import Generation, LoomError, installed
from loom_core.contract.options import assignments
from loom_core.run.judges import ReplyOptions, parse_judge, recorded_replies


def test_limits() -> None:
    asked = Generation(max_tokens=16, stop=("\n",))
    assert ReplyOptions().limits(asked) == asked and ReplyOptions().facts() == {}
    assert ReplyOptions(max_tokens=64).limits(asked).max_tokens == 64
    thinking = ReplyOptions(thinking="<think>,</think>", thinking_budget=4096, silence=5.0)
    assert thinking.limits(asked).max_tokens == 4112
    assert thinking.facts() == {"thinking": "<think>,</think>", "thinking_budget": 4096}, "silence asks nothing else"
    assert ReplyOptions(**thinking.facts()).thinks == thinking.thinks


def test_options_find_their_owner() -> None:
    given = assignments("thinking=<think>,</think>,thinking_budget=8,answers=null,window=99", where="--judge-option")
    assert given["thinking"] == "<think>,</think>"
    judge = parse_judge("double:toy", given, installed())
    assert judge is not None and (judge.reply.thinking_budget, judge.server_options.answers) == (8, "null")
    assert judge.model_options.window == 99


def test_a_recorded_judge_is_read_as_it_was_taken() -> None:
    reply = ReplyOptions(thinking="<think>,</think>", thinking_budget=8)
    assert recorded_replies({"digest": "x", "reply": reply.facts()}) == reply
    assert recorded_replies(None) == recorded_replies({"digest": "x"}) == ReplyOptions()
    for damaged in ({"reply": {"what": 1}}, {"reply": [1]}, {"reply": {"max_tokens": "x"}}):
        with pytest.raises(LoomError):
            recorded_replies(damaged)


@pytest.mark.parametrize("given", [{"thinking": "<think>"}, {"thinking_budget": "4"}, {"silence": "0"}])
def test_mistakes(given: dict[str, str]) -> None:
    with pytest.raises(LoomError):
        parse_judge("double:toy", given, installed())


def test_no_server_has_an_option_of_the_same_name() -> None:
    ours = {field.name for field in fields(ReplyOptions)}
    for found in installed().servers:
        for kind in (found.spec.options, found.spec.model_options):
            assert not ours & {field.name for field in fields(kind)}, found.spec.name
