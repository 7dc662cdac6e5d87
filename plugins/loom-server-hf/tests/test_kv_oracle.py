"""Recorded results of other people's code (../shared/oracle): every row that an installed method covers agrees."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from loom_server_hf.oracle import check

from loom_core.errors import DataError

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


def test_a_folder_that_is_no_oracle(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no recorded results"):
        check(tmp_path)
