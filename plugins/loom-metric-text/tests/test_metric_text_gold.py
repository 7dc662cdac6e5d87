"""Every official score of the shared gold rows, through our metrics. Looks for the rows at ../shared/gold-examples."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loom_metric_text.gold import known, metric_for, score

SHARED = Path(os.environ.get("LOOM_SHARED") or Path(__file__).resolve().parents[4] / "shared")
FOLDER = SHARED / "gold-examples"

ELSEWHERE = {
    "l_citeeval_citation.json": "needs an entailment model",
    "l_citeeval_citation_fuzz.json": "needs an entailment model",
    "l_citeeval_known_passages.json": "belongs to the lciteeval benchmark's own metrics",
    "longcite_citation.json": "needs a judge",
    "longsafety_judgment.json": "needs a judge",
    "longproc.json": "runs or parses structured output; no text metric",
    "oolong.json": "not among the suites",
    "passkey.json": "belongs to the passkey benchmark's own metrics",
}
NEEDS_STOP_WORDS = ("qa_f1_score_with_gold_ans", "qa_f1_zh_score_with_gold_ans", "rouge_zh_score_blacklist")
WITHOUT_WORDS = pytest.mark.skip(reason="needs the stop-word lists of LV-Eval's authors, which are not shipped")


def needs_stop_words(row: dict[str, Any]) -> bool:
    """Also the rows of a whole task, but for the two tasks of plain F1."""
    whole = row["benchmark"] == "lveval" and row["metric"] == "scorer" and not row["task"].startswith("factrecall")
    return whole or row["metric"] in NEEDS_STOP_WORDS


def rows() -> Iterator[Any]:
    """Each row with an id; one skipped parameter where there are none."""
    files = sorted(path for path in FOLDER.glob("*.json") if path.name not in ELSEWHERE) if FOLDER.is_dir() else []
    for path in files:
        for i, row in enumerate(json.loads(path.read_text("utf-8"))):
            marks = [WITHOUT_WORDS] if needs_stop_words(row) else []
            yield pytest.param(row, id=f"{path.stem}-{i}", marks=marks)
    if not files:
        yield pytest.param(None, marks=pytest.mark.skip(reason=f"no gold rows at {FOLDER}"))


def same(ours: Any, official: Any) -> bool:
    """Equal in shape, numbers within 1e-6."""
    if isinstance(official, dict):
        return set(ours) == set(official) and all(same(ours[key], official[key]) for key in official)
    if isinstance(official, list):
        return len(ours) == len(official) and all(map(same, ours, official))
    if isinstance(official, (int, float)) and not isinstance(official, bool):
        return bool(abs(ours - official) <= 1e-6)
    return bool(ours == official)


@pytest.mark.parametrize("row", list(rows()))
def test_equals_the_official_score(row: dict[str, Any]) -> None:
    assert known(row)
    ours, official = score(row), row["official_score"]
    if isinstance(official, dict) and "raises" in official:
        # Where the authors' scorer raises, the sample stays and scores 0.
        numbers = ours.values() if isinstance(ours, dict) else ours if isinstance(ours, list) else [ours]
        assert all(number == 0 for number in numbers)
    else:
        assert same(ours, official), (ours, official)


def test_rows_left_out_are_those_of_other_plugins() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"no gold rows at {FOLDER}")
    for name in ELSEWHERE:
        for row in json.loads((FOLDER / name).read_text("utf-8")):
            assert not known(row), name


def test_unknown_row_is_refused_by_name() -> None:
    row = {"benchmark": "longbnch", "task": "x", "metric": "y", "prediction": "", "references": []}
    with pytest.raises(Exception, match="no text metric scores"):
        metric_for(row)
