"""Exact and partial match: the official rows, and what must hold for any answer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from loom_bench_passkey.benchmark import Passkey
from loom_bench_passkey.scoring import ExactMatch, PartialMatch, common_substring, exact, partial
from loom_kit.gold import agrees, score_gold_row

from loom_core.api import Prompt, Sample

ROOT = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("LOOM_SHARED", ROOT.parent / "shared"))
DIGITS = st.integers(10**6, 10**7 - 1).map(str)


def sample(key: str) -> Sample:
    return Sample(id="x", task="t", prompt=Prompt(segments=()), references=(key,))


def test_gold_rows() -> None:
    file = SHARED / "gold-examples" / "passkey.json"
    if not file.is_file():
        pytest.skip(f"no gold rows at {file.parent}")
    rows = json.loads(file.read_text("utf-8"))
    assert rows
    for row in rows:
        assert agrees(score_gold_row(row), row["official_score"]), row


@pytest.mark.parametrize(
    ("prediction", "is_exact", "share"),
    [
        ("1234567", True, 1.0),
        (" 1234567.", True, 1.0),
        ("The pass key is 1234567. Remember it.", True, 1.0),
        ("**1234567**", True, 1.0),
        ("1,234,567", True, 3 / 7),
        ("1-2-3-4-5-6-7", True, 1 / 7),
        ("71234567", True, 1.0),
        ("12345678", True, 1.0),
        ("123 4567", False, 4 / 7),
        ("1234\n567", False, 4 / 7),
        ("1234568", False, 6 / 7),
        ("7654321", False, 1 / 7),
        ("234567", False, 6 / 7),
        ("1" * 50, False, 1 / 7),
        ("", False, 0.0),
        ("I do not know", False, 0.0),
        ("１２３４５６７", False, 0.0),
        ("123４567", False, 3 / 7),
    ],
)
def test_by_hand(prediction: str, is_exact: bool, share: float) -> None:
    assert ExactMatch().score(prediction, sample("1234567")).value == float(is_exact)
    assert PartialMatch().score(prediction, sample("1234567")).value == pytest.approx(share)


def test_a_miss_counts_zero_here_and_appends_nothing_there() -> None:
    assert ExactMatch().score("0", sample("1234567")).value == 0.0
    row = {"benchmark": "passkey", "prediction": "0", "references": ["1234567"]}
    assert Passkey.score_gold(row) == {"exact_match": [], "partial_match": [0.0]}
    row["references"] = ["1234567", "7000000"]
    assert Passkey.score_gold(row) == {"exact_match": [0, 0], "partial_match": [0.0, 1 / 7]}


@given(DIGITS, st.text(max_size=40), st.text(max_size=40))
def test_an_answer_that_contains_the_key_is_right(key: str, before: str, after: str) -> None:
    assert exact(before + key + after, key)
    assert partial(before + key + after, key) == 1.0


def longest_by_table(a: str, b: str) -> int:
    """The textbook dynamic programme."""
    best, row = 0, [0] * (len(b) + 1)
    for x in a:
        row = [0, *(row[j] + 1 if x == y else 0 for j, y in enumerate(b))]
        best = max(best, *row)
    return best


@given(st.text(alphabet="0123 ,a", max_size=30), st.text(alphabet="0123", min_size=1, max_size=12))
def test_longest_common_substring(prediction: str, key: str) -> None:
    found = common_substring(prediction, key)
    assert found in prediction
    assert found in key
    assert len(found) == longest_by_table(prediction, key)
    assert 0.0 <= partial(prediction, key) <= 1.0
