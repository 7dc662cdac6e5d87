"""Truncation: the result fits, what may not be cut is intact, the ends are kept, and what went is counted."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given, strategies as st

from loom_core.api import ModelError, Prompt, Truncation, segment
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import fit, render
from loom_core.contract.prompt import only_context_changed
from loom_core.prompting.truncate import keep_ends

TOKENIZER = ToyTokenizer()
Side = Literal["middle", "left", "right"]
SIDES: tuple[Side, ...] = ("middle", "left", "right")
text = st.text(st.characters(codec="utf-8"), max_size=60)
ascii_text = st.text("abcdefgh ", max_size=60)


def made(instruction: str, contexts: list[str], question: str) -> Prompt:
    """A prompt with a context in several segments."""
    parts = [segment("instruction", instruction), *(segment("context", c) for c in contexts)]
    return Prompt(segments=(*parts, segment("question", question), segment("prefill", "A:")))


prompts = st.builds(made, text, st.lists(text, min_size=1, max_size=3), text)


def length(prompt: Prompt, chat: Any) -> int:
    """Tokens of the rendered prompt."""
    return len(render(prompt, TOKENIZER, chat=chat).token_ids or ())


@given(prompts, st.integers(0, 250), st.sampled_from(SIDES), st.sampled_from(["template", "completion"]))
def test_a_cut_context_fits_and_nothing_else_changes(prompt: Prompt, limit: int, side: Side, chat: Any) -> None:
    empty = Prompt(segments=tuple(s for s in prompt.segments if s.kind != "context"))
    before, least = length(prompt, chat), length(empty, chat)
    policy = Truncation(side=side)
    if least > limit:
        with pytest.raises(ModelError, match="does not fit") as caught:
            fit(prompt, TOKENIZER, chat=chat, truncation=policy, limit=limit)
        assert f"{before} tokens in all, {limit} allowed" in caught.value.why and str(least) in caught.value.why
        return
    cut, rendered = fit(prompt, TOKENIZER, chat=chat, truncation=policy, limit=limit)
    after = len(rendered.token_ids or ())
    assert after <= limit and rendered.token_ids == render(cut, TOKENIZER, chat=chat).token_ids
    assert only_context_changed(prompt, cut)
    assert rendered.n_dropped == before - after and rendered.cut == (("context",) if before > limit else ())
    if before <= limit:
        assert cut == prompt
    else:
        assert after > limit - 8, "no more is cut than a character's bytes ask for"
    assert ends_kept(prompt.context, cut.context, side)


def ends_kept(before: str, after: str, side: str) -> bool:
    """True if what is left is the end, the start, or both, as the side says."""
    if side == "left":
        return before.endswith(after)
    if side == "right":
        return before.startswith(after)
    return any(before.startswith(after[:i]) and before.endswith(after[i:]) for i in range(len(after) + 1))


@given(ascii_text, ascii_text, st.integers(10, 60))
def test_the_middle_goes_and_the_halves_are_equal(context: str, question: str, room: int) -> None:
    prompt = made("Read. ", [context], question)
    limit = length(made("Read. ", [""], question), "completion") + room
    cut, _ = fit(prompt, TOKENIZER, chat="completion", truncation=Truncation(), limit=limit)
    if len(context) > room:
        head, tail = (room + 1) // 2, room // 2
        assert cut.context == context[:head] + context[len(context) - tail :]


def test_the_cut_runs_over_the_borders_of_context_segments() -> None:
    prompt = made("", ["abcd", "efgh", "ijkl"], "?")
    cut, _ = fit(prompt, TOKENIZER, chat="completion", truncation=Truncation(), limit=length(prompt, "completion") - 6)
    assert [s.text for s in cut.segments if s.kind == "context"] == ["abc", "", "jkl"]


def test_a_character_of_many_tokens_at_the_cut_does_not_fail_where_an_empty_context_fits() -> None:
    prompt = made("", ["a😀"], "")
    limit = length(made("", [""], ""), "completion") + 1
    cut, rendered = fit(prompt, TOKENIZER, chat="completion", truncation=Truncation(side="left"), limit=limit)
    assert cut.context == "" and rendered.n_dropped == 5


def test_a_budget_below_the_limit_counts() -> None:
    prompt = made("", ["abcdefgh"], "?")
    whole = length(prompt, "completion")
    _, rendered = fit(prompt, TOKENIZER, chat="completion", truncation=Truncation(), limit=whole, budget=whole - 3)
    assert rendered.n_dropped == 3


@given(ascii_text, ascii_text, ascii_text, st.integers(4, 200))
def test_the_authors_rule_keeps_the_first_and_the_last_half_of_the_raw_prompt(
    instruction: str, context: str, question: str, limit: int
) -> None:
    """input_ids (BOS first) longer than the limit: the first half and the last half of them, whatever they hold."""
    prompt = made(instruction, [context], question)
    policy = Truncation(scope="prompt", limit=limit)
    cut, rendered = fit(prompt, TOKENIZER, chat="completion", truncation=policy, limit=10_000)
    ids = TOKENIZER.encode(prompt.text, special=True)
    half = limit // 2
    kept = ids if len(ids) <= limit else ids[:half] + ids[-half:]
    assert list(rendered.token_ids or ()) == kept
    assert rendered.n_dropped == len(ids) - len(kept)
    changed = {old.kind for old, new in zip(prompt.segments, cut.segments, strict=True) if old != new}
    assert set(rendered.cut) == changed


@given(st.text("aé中😀", max_size=40), st.text("aé中😀", max_size=40), st.integers(2, 100), st.booleans())
def test_the_authors_rule_reads_kept_tokens_back_as_they_do(before: str, after: str, limit: int, whole: bool) -> None:
    """Half a character is U+FFFD: each half alone (LongBench), or both as one text (LongBench v2, one token more where
    the limit is odd)."""
    prompt = made(before, [after], "a")
    policy = Truncation(scope="prompt", limit=limit, decoded="whole" if whole else "parts")
    cut, _ = fit(prompt, TOKENIZER, chat="completion", truncation=policy, limit=10_000)
    ids = TOKENIZER.encode(prompt.text, special=True)
    half = limit // 2
    expected = TOKENIZER.decode(ids)
    if len(ids) > limit and whole:
        expected = TOKENIZER.decode(ids[:half] + ids[-(limit - half) :])
    elif len(ids) > limit:
        expected = TOKENIZER.decode(ids[:half]) + TOKENIZER.decode(ids[-half:])
    assert cut.text == expected


@given(prompts, st.integers(-3, 30), st.sampled_from(SIDES))
def test_the_authors_rule_survives_the_smallest_limits(prompt: Prompt, limit: int, side: Side) -> None:
    policy = Truncation(scope="prompt", side=side, limit=None)
    try:
        _, rendered = fit(prompt, TOKENIZER, chat="completion", truncation=policy, limit=limit)
    except ModelError:
        assert limit < 1, "BOS alone is left of the smallest"
    else:
        assert len(rendered.token_ids or ()) <= limit


@given(prompts)
def test_a_prompt_that_fits_is_left_alone(prompt: Prompt) -> None:
    for policy in (Truncation(scope="context"), Truncation(scope="prompt")):
        cut, rendered = fit(prompt, TOKENIZER, chat="template", truncation=policy, limit=10_000)
        assert cut == prompt and rendered.n_dropped == 0 and rendered.cut == ()


@given(st.integers(0, 50), st.integers(0, 50), st.sampled_from(SIDES))
def test_keep_ends_removes_exactly_what_is_too_much(n: int, keep: int, side: str) -> None:
    keep = min(keep, n)
    start, end = keep_ends(n, keep, side)
    assert end - start == n - keep and 0 <= start <= end <= n
