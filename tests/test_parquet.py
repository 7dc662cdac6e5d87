"""Parquet records: streamed, checked column by column, and what each failure says."""

from __future__ import annotations

import builtins
import datetime
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from loom_kit.upstream import pinned, put

from loom_core.api import DataDir, DataError, DataSource
from loom_core.api.records import Check, Record, listed, mapping, optional, read_records, text, whole

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = [{"context": f"c{i}", "n": i, "answers": ["a", "b"], "meta": {"k": i}} for i in range(300)]
FIELDS: dict[str, Check] = {"context": text, "n": whole, "answers": listed(text), "meta": mapping, "no": optional(text)}


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return DataDir(mirror=tmp_path / "mirror", cache=tmp_path / "cache", hub_cache=tmp_path / "hub", offline=True)


def written(tmp_path: Path, rows: Any, **options: Any) -> DataSource:
    path = put(tmp_path, "mirror/bench/data/test-00000-of-00001.parquet", b"")
    table = rows if isinstance(rows, pyarrow.Table) else pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, path, **options)
    return pinned("data/test-00000-of-00001.parquet", path.read_bytes(), origin="hf:o/d@r1")


def read(data: DataDir, source: DataSource, fields: dict[str, Check]) -> list[Record]:
    return list(read_records(data, source, fields, form="parquet"))


@pytest.mark.parametrize("group", [1, 7, 64, 1000])
def test_rows_come_in_order_over_row_groups(tmp_path: Path, data: DataDir, group: int) -> None:
    found = read(data, written(tmp_path, ROWS, row_group_size=group), FIELDS)
    assert [record.number for record in found] == list(range(1, 301))
    assert [dict(record.values) for record in found] == ROWS
    assert data.bad == {}


def test_an_optional_column_may_be_absent_or_null(tmp_path: Path, data: DataDir) -> None:
    source = written(tmp_path, [{"a": "x", "no": None}, {"a": "y", "no": "z"}])
    assert [record.get("no") for record in read(data, source, {"a": text, "no": optional(text)})] == [None, "z"]
    assert len(read(data, source, {"a": text, "other": optional(text)})) == 2


def test_a_changed_column_is_named_with_those_that_are_there(tmp_path: Path, data: DataDir) -> None:
    source = written(tmp_path, [{"contexts": "x", "n": 1}])
    with pytest.raises(DataError) as caught:
        read(data, source, FIELDS)
    words = ("no column 'context'", source.pin, "contexts, n", "missing too: answers, meta", "mean contexts")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_value_of_another_type_is_named_by_file_row_and_column(tmp_path: Path, data: DataDir) -> None:
    when = datetime.datetime(2026, 1, 1)
    source = written(tmp_path, [{"a": "x", "t": when}, {"a": None, "t": when}])
    assert [record.number for record in read(data, source, {"a": text})] == [1]
    assert read(data, source, {"t": text}) == []
    said = [str(bad) for bad in data.bad]
    assert f"{source.pin}, row 2, field 'a': not a text but null" in said
    assert f"{source.pin}, row 1, field 't': not a text but datetime" in said


def test_memory_holds_a_few_rows(tmp_path: Path, data: DataDir) -> None:
    source = written(tmp_path, [{"a": str(i) * 20_000} for i in range(10, 1000)], row_group_size=100)
    data.path(source)
    tracemalloc.start()
    assert sum(1 for _ in read_records(data, source, {"a": text}, form="parquet")) == 990
    assert tracemalloc.get_traced_memory()[1] < 20_000_000  # of 57 MB of texts
    tracemalloc.stop()


@pytest.mark.parametrize("damage", ["cut", "no parquet"])
def test_what_is_no_parquet_is_named(tmp_path: Path, data: DataDir, damage: str) -> None:
    written(tmp_path, ROWS)
    file = tmp_path / "mirror/bench/data/test-00000-of-00001.parquet"
    content = file.read_bytes()[:-100] if damage == "cut" else b"PAR1 nothing"
    file.write_bytes(content)
    source = pinned("data/test-00000-of-00001.parquet", content, origin="hf:o/d@r1")
    with pytest.raises(DataError, match=r"(?s)cannot be read.*hf:o/d@r1.*not a Parquet file, or a damaged one"):
        read(data, source, FIELDS)


def test_without_pyarrow_one_message_says_what_to_install(
    tmp_path: Path, data: DataDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(tmp_path, ROWS)
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError("No module named 'pyarrow'")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r'(?s)hf:o/d@r1:data/test.*pip install "loom-core\[parquet\]"'):
        read(data, source, FIELDS)
