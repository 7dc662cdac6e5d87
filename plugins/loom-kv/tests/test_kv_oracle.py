"""Recorded results of other people's code (../shared/oracle): every row that an installed method covers agrees."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loom_kv.testing.oracle import check

from loom_core.api import DataError

SHARED = Path(os.environ.get("LOOM_SHARED", Path(__file__).parents[4] / "shared"))
ORACLE = SHARED / "oracle"
COVERED = (
    "dense",
    "masked_dense",
    "kvpress_snapkv",
    "official_snapkv",
    "kvcf_snapkv_kvhead",
    "own_snapkv_pool_then_group",
    "kvpress_streamingllm",
    "kvcf_streamingllm",
    "official_streamingllm_streamed",
    "kvpress_knorm",
    "official_l2compress",
    "kvcf_l2norm",
    "kvpress_tova",
    "kvpress_pyramidkv",
    "kvcf_pyramidkv",
    "kvcf_pyramidkv_budgets",
    "kvpress_adakv",
    "kvcf_adakv",
    "kvpress_expected_attention",
    "kvcf_h2o_oneshot",
    "official_h2o",
    "own_h2o_gqa",
    "official_cake",
    "official_cam",
    "kvpress_think",
    "official_think",
    "official_kivi",
    "official_flexgen",
)

needs_oracle = pytest.mark.skipif(
    not ORACLE.is_dir(), reason=f"no recorded results at {ORACLE}; set LOOM_SHARED to the folder that holds oracle/"
)


@needs_oracle
@pytest.mark.parametrize("method", COVERED)
def test_recorded_rows_agree(method: str) -> None:
    row = next(row for row in check(ORACLE, [method]) if row.method == method)
    assert row.differ == 0, row.details
    assert row.agree > 0
    assert row.not_covered == 0


@needs_oracle
def test_methods_without_an_owner_are_counted_as_not_covered() -> None:
    rows = {row.method: row for row in check(ORACLE, ["official_xattention"])}
    assert rows["official_xattention"].agree == rows["official_xattention"].differ == 0
    assert rows["official_xattention"].not_covered > 0


@needs_oracle
def test_an_altered_row_differs(tmp_path: Path) -> None:
    folder = tmp_path / "oracle"
    (folder / "expected").mkdir(parents=True)
    shutil.copy(ORACLE / "prompts.json", folder)
    (folder / "models").symlink_to(ORACLE / "models")
    record = json.loads((ORACLE / "expected" / "kvpress_snapkv.json").read_text())
    record["cases"] = record["cases"][:3]
    wrong_set, wrong_logit, _ = record["cases"]
    head = wrong_set["kept"][1][0]
    head[0] = next(place for place in range(wrong_set["N"]) if place not in head)
    wrong_logit["steps"][2]["first16"][5] += 0.01
    (folder / "expected" / "kvpress_snapkv.json").write_text(json.dumps(record))
    (row,) = check(folder)
    assert (row.agree, row.differ) == (1, 2)
    assert "layer 1 head 0" in row.details[0]
    assert "step 2: first16" in row.details[1]


@needs_oracle
def test_altered_evictions_scores_budgets_and_merges_differ(tmp_path: Path) -> None:
    folder = tmp_path / "oracle"
    (folder / "expected").mkdir(parents=True)
    shutil.copy(ORACLE / "prompts.json", folder)
    (folder / "models").symlink_to(ORACLE / "models")

    def differs(method: str, number: int, spoil: Callable[[Any], None]) -> str:
        record = json.loads((ORACLE / "expected" / f"{method}.json").read_text())
        record["cases"] = record["cases"][number : number + 1]
        spoil(record["cases"][0])
        (folder / "expected" / f"{method}.json").write_text(json.dumps(record))
        (row,) = check(folder, [method])
        assert (row.agree, row.differ) == (0, 1)
        return row.details[0]

    def spoil_step(case: Any) -> None:
        case["evicted_at_step"][3][2][1] = [0]

    def spoil_scores(case: Any) -> None:
        case["scores_after_prefill"][1]["head_last8"][2][7] *= 1.01

    def spoil_last(case: Any) -> None:
        case["score_after_last_step_head0_first8"][2][1] *= 1.01

    def spoil_final(case: Any) -> None:
        case["final_kept"][0][0][0] += 1000

    def spoil_preference(case: Any) -> None:
        case["entropy_variance_pref"][3][1] *= 1.001

    def spoil_stage(case: Any) -> None:
        case["budget_after_each_layer"][1][0] += 1

    def spoil_delta(case: Any) -> None:
        case["delta_per_head"][1][0][0] += 1e-4

    def spoil_place(case: Any) -> None:
        case["evicted_index"] += 1

    assert "layer 2 head 1 drops" in differs("official_h2o", 0, spoil_step)
    assert "head_last8" in differs("official_h2o", 0, spoil_scores)
    assert "after the last step differ" in differs("official_h2o", 0, spoil_last)
    assert "after the last step, layer 0 head 0" in differs("official_h2o", 0, spoil_final)
    assert "entropy_variance_pref" in differs("official_cake", 0, spoil_preference)
    assert "budget_after_each_layer" in differs("official_cake", 0, spoil_stage)
    assert "delta_per_head" in differs("official_cam", 2, spoil_delta)
    assert "is merged, not" in differs("official_cam", 2, spoil_place)


def test_a_folder_that_is_no_oracle(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no recorded results"):
        check(tmp_path)
