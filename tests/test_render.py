"""Rendering: one list of token ids, a span for every token, templates that strip, and the audit of BOS."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, strategies as st

from loom_core.api import Prompt, Segment, digest, segment
from loom_core.api.serving import messages, prefill_text, render
from loom_core.contract.keys import prompt_digest

START, TURN = "<s>", "<|turn|>"


@dataclass
class FakeTokenizer:
    """Words with the space before them as tokens; `<s>` and `<|turn|>` are single special tokens, as in real ones.

    template: "plain", "strip" (contents are stripped), "bos" (starts with `<s>`), "rude" (upper-cases contents, so that
    they cannot be found again), or none.
    """

    template: str = "plain"
    adds_bos: bool = True
    bos_id: int | None = 0
    digest: str = "fake"
    template_digest: str = "fake"

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character spans."""
        found = list(re.finditer(r"<s>|<\|turn\|>| ?[^\s<]+|\s|<", text))
        ids = [{START: 0, TURN: 1}.get(m[0], 2 + sum(map(ord, m[0])) % 1000) for m in found]
        return ids, [m.span() for m in found]

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids."""
        return [0] * special + self.offsets(text)[0]

    def decode(self, ids: Sequence[int]) -> str:
        """Not needed here."""
        raise NotImplementedError

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """Each message after its role."""
        if self.template == "none":
            return None
        change: Any = {"strip": str.strip, "rude": str.upper}.get(self.template, str)
        rows = [f"{TURN}{m['role']}\n{change(m['content'])}\n" for m in messages]
        return (START if self.template == "bos" else "") + "".join(rows) + f"{TURN}assistant\n"


def spans_of(prompt: Prompt, tokenizer: Any, chat: Any = "template") -> list[tuple[str, str]]:
    """(kind, text) of each span of a rendered prompt, checked to cover all tokens in order."""
    rendered = render(prompt, tokenizer, chat=chat)
    assert rendered.token_ids is not None
    ids, offsets = tokenizer.offsets(rendered.text)
    lead = len(rendered.token_ids) - len(ids)
    assert list(rendered.token_ids[lead:]) == ids and lead in (0, 1)
    edges = [0, *(span.end for span in rendered.spans)]
    assert [span.start for span in rendered.spans] == edges[:-1] and edges[-1] == len(rendered.token_ids)
    assert all(span.end > span.start for span in rendered.spans)
    starts = [0] * lead + [start for start, _ in offsets] + [len(rendered.text)]
    return [(span.kind, rendered.text[starts[span.start] : starts[span.end]]) for span in rendered.spans]


PARTS = (
    segment("system", "Be brief."),
    segment("instruction", "Read this."),
    segment("context", " A fox. A crow."),
    segment("question", " Who flew?"),
    segment("prefill", " The"),
)


def test_a_chat_prompt_has_its_parts_where_they_stand() -> None:
    assert spans_of(Prompt(segments=PARTS), FakeTokenizer()) == [
        ("template", "<|turn|>system\n"),
        ("system", "Be brief."),
        ("template", "\n<|turn|>user\n"),
        ("instruction", "Read this."),
        ("context", " A fox. A crow."),
        ("question", " Who flew?"),
        ("template", "\n<|turn|>assistant\n"),
        ("prefill", " The"),
    ]


def test_a_completion_prompt_is_the_plain_text_after_bos() -> None:
    prompt = Prompt(segments=PARTS)
    rendered = render(prompt, FakeTokenizer(), chat="completion")
    assert rendered.text == prompt.text and rendered.token_ids is not None and rendered.token_ids[0] == 0
    assert spans_of(prompt, FakeTokenizer(), "completion")[0] == ("template", "")


def test_a_template_that_strips_moves_the_ends_inwards() -> None:
    parts = (segment("context", "  \n one two"), segment("question", " three \n "))
    assert spans_of(Prompt(segments=parts), FakeTokenizer("strip")) == [
        ("template", "<|turn|>user\n"),
        ("context", "one two"),
        ("question", " three"),
        ("template", "\n<|turn|>assistant\n"),
    ]


def test_a_template_that_changes_the_words_leaves_them_to_the_template() -> None:
    assert [kind for kind, _ in spans_of(Prompt(segments=PARTS[2:4]), FakeTokenizer("rude"))] == ["template"]


@pytest.mark.parametrize("word", ["user", "system", "turn", "s", "<", "assistant\n"])
def test_a_short_content_is_not_mistaken_for_a_word_of_the_template(word: str) -> None:
    parts = (segment("system", "x"), segment("context", "user "), segment("question", word))
    found = spans_of(Prompt(segments=parts), FakeTokenizer())
    assert [text for kind, text in found if kind == "system"] == ["x"]
    assert "".join(text for kind, text in found if kind in ("context", "question")) == "user " + word


def test_a_model_without_a_template_gets_plain_text() -> None:
    prompt = Prompt(segments=PARTS)
    assert render(prompt, FakeTokenizer("none"), chat="template").text == prompt.text


@pytest.mark.parametrize(
    ("tokenizer", "chat", "text", "found", "expected"),
    [
        (FakeTokenizer(), "completion", "a", 1, 1),
        (FakeTokenizer(adds_bos=False), "completion", "a", 0, 0),
        (FakeTokenizer(bos_id=None, adds_bos=False), "completion", "a", 0, 0),
        (FakeTokenizer("bos"), "template", "a", 1, 1),
        (FakeTokenizer("plain"), "template", "a", 0, 1),
        (FakeTokenizer("bos", adds_bos=False), "template", "a", 1, 0),
        (FakeTokenizer(), "completion", "<s>a", 2, 1),
    ],
)
def test_bos_is_counted_against_the_convention(
    tokenizer: FakeTokenizer, chat: Any, text: str, found: int, expected: int
) -> None:
    rendered = render(Prompt(segments=(segment("question", text),)), tokenizer, chat=chat)
    assert (rendered.bos, rendered.expected_bos) == (found, expected)


def test_messages_join_equal_roles_and_leave_the_prefill_out() -> None:
    prompt = Prompt(segments=PARTS)
    assert messages(prompt) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Read this. A fox. A crow. Who flew?"},
    ]
    assert prefill_text(prompt) == " The"


words = st.text("ab \n<", max_size=12)
segments = st.lists(
    st.builds(
        Segment,
        kind=st.sampled_from(["system", "instruction", "context", "question"]),
        text=words,
        role=st.sampled_from(["system", "user", "assistant"]),
    ),
    min_size=1,
    max_size=6,
)


@given(
    segments, st.sampled_from(["plain", "strip", "bos", "rude", "none"]), st.sampled_from(["template", "completion"])
)
def test_spans_cover_every_token_once_whatever_the_prompt(rows: list[Segment], template: str, chat: str) -> None:
    spans_of(Prompt(segments=tuple(rows)), FakeTokenizer(template), chat)


@given(segments)
def test_unstripped_contents_are_found_whole(rows: list[Segment]) -> None:
    """A token that begins in one part and ends in the next belongs to the first; so texts are compared joined."""
    from loom_core.api.doubles import ToyTokenizer

    rows = [row for row in rows if row.text]
    found = spans_of(Prompt(segments=tuple(rows)), ToyTokenizer()) if rows else []
    assert "".join(text for kind, text in found if kind != "template") == "".join(row.text for row in rows)
    merged = [kind for kind, _ in found if kind != "template"]
    assert merged == [row.kind for row in rows]


def test_a_segment_that_stands_apart_begins_a_message() -> None:
    parts = (segment("context", "c"), segment("question", "q"))
    prompt = Prompt(segments=(*parts, segment("question", "again")))
    apart = Prompt(segments=(*parts, Segment(kind="question", text="again", apart=True)))
    assert [row["content"] for row in messages(prompt)] == ["cqagain"]
    assert [row["content"] for row in messages(apart)] == ["cq", "again"]
    plain = [[one.kind, one.role, one.text] for one in prompt.segments]
    assert prompt_digest(prompt) == digest(plain), "what stands nowhere apart keeps its digest"
    assert prompt_digest(apart) != prompt_digest(prompt)
    rendered = render(apart, FakeTokenizer(), chat="template")
    assert rendered.text.count("again") == 1 and rendered.spans[-1].kind in ("question", "template")
