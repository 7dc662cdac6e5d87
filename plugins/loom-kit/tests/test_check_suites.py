"""`loom check` names the fault of a broken suite, and blames none of this repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from loom_kit.conformance import check_spec
from loom_kit.conformance_suite import check_suite

from loom_core.api import Catalog, SuiteSpec, installed

SPEC = SuiteSpec(name="mine", version="1", summary="x", factory="x:x")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('benchmarks = ["fable@n=2:tell"]\nsubset = 2', ""),
        ("benchmarks = [", "not valid TOML"),
        ("subset = 2", "it selects nothing"),
        ('benchmarks = ["fable"]\nsuite = "other"', "names another suite (other)"),
        ('benchmarks = ["fable"]\nlenghts = ["1k"]', "unknown setting 'lenghts'"),
        ('benchmarks = ["fabel"]', "did you mean fable"),
        ('benchmarks = ["fable@nn=2"]', "nn"),
        ('benchmarks = ["fable"]\naccel = ["truncatte"]', "truncatte"),
    ],
)
def test_faults_are_named(text: str, fault: str, tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "mine.toml").write_text(text, "utf-8")
    rows = list(check_suite(SPEC, lambda: tmp_path / "mine.toml", catalog))
    failed = "".join(row.why for row in rows if not row.passed)
    assert fault in failed and bool(fault) == bool(failed), failed


def test_a_file_that_is_not_there_is_named(tmp_path: Path, catalog: Catalog) -> None:
    (row,) = check_suite(SPEC, lambda: tmp_path / "gone.toml", catalog)
    assert not row.passed and "gone.toml" in row.why


def test_no_suite_of_this_repository_is_blamed() -> None:
    everything = installed()
    for found in everything.suites:
        assert [(row.check, row.why) for row in check_spec(found, everything) if not row.passed] == []
