"""Official scores of every installed benchmark agree, through `score_gold_row`. Rows: ../shared/gold-examples."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import json_repair
import pytest
from loom_kit.gold import agrees, score_gold_row

from loom_core.api import installed

SHARED = Path(os.environ.get("LOOM_SHARED") or Path(__file__).resolve().parents[2] / "shared")
FOLDER = SHARED / "gold-examples"
TOLERANCE = 1e-6


def plain(name: str) -> str:
    """A benchmark's name as rows and registrations have in common."""
    return name.lower().replace("_", "").replace("-", "")


def rows() -> Iterator[Any]:
    """Each row of a benchmark that is installed; one skipped parameter where there are none."""
    names = {plain(found.spec.name) for found in installed().benchmarks}
    found = False
    for path in sorted(FOLDER.glob("*.json")) if FOLDER.is_dir() else []:
        for i, row in enumerate(json.loads(path.read_text("utf-8"))):
            if plain(row["benchmark"]) in names:
                found = True
                yield pytest.param(row, id=f"{path.stem}-{i}")
    if not found:
        yield pytest.param(None, marks=pytest.mark.skip(reason=f"no gold rows at {FOLDER}"))


def zero(score: Any) -> bool:
    """True where every number is 0, or there is no value: what a row scores over which the authors' scorer raises."""
    if isinstance(score, dict):
        return all(map(zero, score.values()))
    if isinstance(score, list):
        return all(map(zero, score))
    return score is None or score == 0


def mended(row: dict[str, Any]) -> Any:
    """Counting-Stars' English program stops at broken JSON, its Chinese one mends it and loom does so for both: the
    score of the mended JSON, on which neither program stops. None for any other row."""
    if row["benchmark"] != "counting_stars" or not row["task"].startswith("EN"):
        return None
    text = row["prediction"].replace("，", ",")
    return score_gold_row({**row, "prediction": json.dumps(json_repair.loads(text[text.index("{") :]))})


@pytest.mark.parametrize("row", list(rows()))
def test_row_scores_as_its_authors_did(row: dict[str, Any]) -> None:
    score, official = score_gold_row(row), row["official_score"]
    if isinstance(official, dict) and "raises" in official:
        assert zero(score) or score == mended(row), (score, official)
    else:
        assert agrees(score, official, TOLERANCE), (score, official)


def test_the_benchmarks_of_these_rows_are_there() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"no gold rows at {FOLDER}")
    named = {plain(row["benchmark"]) for path in FOLDER.glob("*.json") for row in json.loads(path.read_text("utf-8"))}
    assert {"ruler", "passkey", "babilong", "countingstars"} <= named
    assert {"ruler", "passkey", "babilong", "countingstars"} <= {plain(f.spec.name) for f in installed().benchmarks}
