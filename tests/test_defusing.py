"""Defused texts: no mark shape is left, nothing else changes, and the way back is exact."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from loom_core.api import defused
from loom_core.score.defusing import restored

KEYS, HEADINGS = ("clarity",), ("Judgment", "Environment Summary")
PIECES = st.lists(
    st.sampled_from(["[", "]", "\\", '"clarity"', ":", " ", "\n", "Judgment", "environment summary", "7"])
)


@given(PIECES.map("".join))
def test_every_text_comes_back(text: str) -> None:
    made = defused(text, keys=KEYS, headings=HEADINGS)
    assert restored(made.text, keys=KEYS, headings=HEADINGS) == text
    assert "[[" not in made.text and "]]" not in made.text and made.n == len(made.text) - len(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[[10]]", r"[\[10]\]"),
        ("[[[1]]]", r"[\[\[1]\]\]"),
        (r"[\[10]\]", r"[\\[10]\\]"),
        ('{"clarity" : 5}', '{"clarity"\\ : 5}'),
        ("[judgment]: 0", r"[\judgment]: 0"),
        ("[ Environment Summary ]", r"[\ Environment Summary ]"),
        ('a [1][2] "clear": [x] \\', 'a [1][2] "clear": [x] \\'),
    ],
)
def test_shapes(text: str, shown: str) -> None:
    made = defused(text, keys=KEYS, headings=HEADINGS)
    assert made.text == shown and bool(made.note) == (text != shown)
