"""The baseline `truncate`: the prompt fits the budget, and only the middle of the context is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from loom_server_hf.tokenizer import HFTokenizer
from loom_server_hf.truncate import Truncate
from transformers import PreTrainedTokenizerFast

from loom_core.api import ModelError, Prompt, UsageError, build, installed, segment
from loom_core.api.serving import render
from loom_core.contract.prompt import only_context_changed

Chat = Any


@pytest.fixture(scope="module")
def tokenizer(new_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> HFTokenizer:
    return HFTokenizer(new_tokenizer())


def made(budget: str) -> Truncate:
    """The baseline as an arm would build it."""
    found = installed().augmentations.get("truncate")
    options = build(found.spec.options, {"budget": budget}, owner="method truncate")
    augmentation: Truncate = installed().load(found)(options)
    return augmentation


def prompt(context: str) -> Prompt:
    return Prompt(
        segments=(
            segment("system", "Be brief. "),
            segment("instruction", "Read this: "),
            segment("context", context),
            segment("question", " What is the pass key?"),
            segment("prefill", "The pass key is"),
        )
    )


def length(made: Prompt, tokenizer: HFTokenizer, chat: Chat) -> int:
    return len(render(made, tokenizer, chat=chat).token_ids or ())


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.sampled_from(["fox", "dog", "band", "8213947", "Käse", "日本", "\n"]), max_size=120),
    budget=st.integers(80, 300),
    chat=st.sampled_from(["template", "completion"]),
)
def test_it_fits_and_touches_the_context_alone(
    tokenizer: HFTokenizer, words: list[str], budget: int, chat: Chat
) -> None:
    before = prompt(" ".join(words))
    after = made(str(budget)).rewrite(before, tokenizer, chat=chat)
    whole, left = length(before, tokenizer, chat), length(after, tokenizer, chat)
    assert left <= budget
    assert only_context_changed(before, after)
    assert (after == before) is (whole <= budget)
    if whole > budget:
        assert left > budget - 40  # no more is cut than a border in the text asks for
        kept = len(after.context)
        head = next((i for i in range(kept) if before.context[i] != after.context[i]), kept)
        assert before.context.endswith(after.context[head:])  # a head and a tail, nothing else


def test_a_ratio_is_of_the_whole_prompt(tokenizer: HFTokenizer) -> None:
    before = prompt("fox " * 400)
    after = made("2x").rewrite(before, tokenizer, chat="completion")
    whole = length(before, tokenizer, "completion")
    assert whole // 2 - 3 <= length(after, tokenizer, "completion") <= whole // 2


def test_a_budget_below_the_question_is_an_error(tokenizer: HFTokenizer) -> None:
    with pytest.raises(ModelError, match="empty context"):
        made("10").rewrite(prompt("fox " * 100), tokenizer, chat="completion")


def test_bytes_are_no_measure_of_a_prompt() -> None:
    with pytest.raises(UsageError) as caught:
        made("64MiB")
    assert "tokens" in caught.value.why


def test_a_server_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match="tokenizer"), made("100").open(None):
        pass
