"""Gold rows: found by name, compared by value and shape."""

from __future__ import annotations

import pytest
from loom_kit.gold import agrees, score_gold_row

from loom_core.api import UsageError


@pytest.mark.parametrize(
    ("score", "official", "same"),
    [
        (1, 1.0, True),
        (3 / 7, 0.42857142857142855, True),
        (0.5, 0.51, False),
        ([1.0], [1], True),
        ([], [0], False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        (None, 0, False),
        (None, None, True),
        ("A", "A", True),
    ],
)
def test_agreement(score: object, official: object, same: bool) -> None:
    assert agrees(score, official) is same


def test_unknown_benchmark() -> None:
    with pytest.raises(UsageError, match="no benchmark 'nosuch' is installed"):
        score_gold_row({"benchmark": "nosuch", "prediction": "", "references": []})
