"""Every official score of the shared gold rows, through our metrics. Looks for the rows at ../shared/gold-examples."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import json_repair
import pytest
from loom_metric_text.gold import known, metric_for, score

from loom_core.api import installed

SHARED = Path(os.environ.get("LOOM_SHARED") or Path(__file__).resolve().parents[4] / "shared")
FOLDER = SHARED / "gold-examples"

ELSEWHERE = {
    "l_citeeval_citation.json": "needs an entailment model",
    "l_citeeval_citation_fuzz.json": "needs an entailment model",
    "l_citeeval_known_passages.json": "belongs to the lciteeval benchmark's own metrics",
    "longcite_citation.json": "needs a judge",
    "longbench_tasks.json": "tables of whole tasks: the longbench benchmark's own",
    "longsafety_fuzz.json": "needs a judge",
    "longsafety_judgment.json": "needs a judge",
    "longproc.json": "runs or parses structured output; no text metric",
    "oolong.json": "not among the suites",
    "passkey.json": "belongs to the passkey benchmark's own metrics",
    "passkey_2.json": "belongs to the passkey benchmark's own metrics",
}
COMING = frozenset(
    f"{name}.json"
    for name in (
        *("ada_leval_2", "bamboo_2", "clongeval", "graphwalks", "haystackcraft", "helmet", "infinitebench", "lara"),
        *("libra_2", "longbench_pro_2", "longbiobench", "longcite", "longgenbench_liu", "longgenbench_wu"),
        *("longhealth", "longiclbench", "longmemeval", "longwriter", "loogle", "loong", "m4le", "mir_bench", "mrcr"),
        *("nolima_2", "nthread", "oolong_2", "scbench_2", "summhay"),
    )
)
"""Rows of benchmarks that loom does not have yet. Their metrics were written before the benchmarks and differ in some
of these rows, or are missing: they are checked when the benchmark comes, and a benchmark that is installed may not
stand here."""
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
            if path.name in COMING:
                marks = [pytest.mark.skip(reason=f"loom has no {row['benchmark']} yet")]
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


def mended(row: dict[str, Any]) -> Any:
    """Counting-Stars' English program stops at broken JSON, its Chinese one mends it and loom does so for both: the
    score of the mended JSON, on which neither program stops. None for any other row."""
    if row["benchmark"] != "counting_stars" or not row["task"].startswith("EN"):
        return None
    text = row["prediction"].replace("，", ",")
    return score({**row, "prediction": json.dumps(json_repair.loads(text[text.index("{") :]))})


@pytest.mark.parametrize("row", list(rows()))
def test_equals_the_official_score(row: dict[str, Any]) -> None:
    assert known(row)
    ours, official = score(row), row["official_score"]
    if isinstance(official, dict) and "raises" in official:
        # Where the authors' scorer raises, the sample stays and scores 0.
        numbers = ours.values() if isinstance(ours, dict) else ours if isinstance(ours, list) else [ours]
        assert all(number == 0 for number in numbers) or ours == mended(row)
    else:
        assert same(ours, official), (ours, official)


def test_rows_left_out_are_those_of_other_plugins() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"no gold rows at {FOLDER}")
    for name in ELSEWHERE:
        for row in json.loads((FOLDER / name).read_text("utf-8")):
            assert not known(row), name


def test_no_installed_benchmark_is_put_off() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"no gold rows at {FOLDER}")
    names = {found.spec.name.replace("-", "") for found in installed().benchmarks}
    for name in COMING:
        put_off = {row["benchmark"].replace("_", "") for row in json.loads((FOLDER / name).read_text("utf-8"))}
        assert not put_off & names, name


def test_unknown_row_is_refused_by_name() -> None:
    row = {"benchmark": "longbnch", "task": "x", "metric": "y", "prediction": "", "references": []}
    with pytest.raises(Exception, match="no text metric scores"):
        metric_for(row)
