"""Records of upstream files: what is right is read in order, what is wrong is named and counted, the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from loom_kit.upstream import pinned, put

from loom_core.api import DataDir, DataError, DataSource
from loom_core.data import records


def held(tmp_path: Path, content: bytes, name: str = "rows.jsonl") -> tuple[DataDir, DataSource]:
    put(tmp_path / "mirror" / "bench", name, content)
    return DataDir(mirror=tmp_path / "mirror", cache=tmp_path / "cache", offline=True), pinned(name, content)


def read(tmp_path: Path, content: bytes, fields: dict[str, records.Check], **how: Any) -> tuple[list[Any], list[str]]:
    data, source = held(tmp_path, content)
    found = [(record.number, dict(record.values)) for record in records.read_records(data, source, fields, **how)]
    return found, [str(bad).partition("rows.jsonl, ")[2] for bad in data.bad]


def test_a_wrong_record_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows = [
        b'{"q": "a", "n": 1, "extra": true}',
        b'{"q": "b"}',
        b'{"q": ["c"], "n": 1}',
        b"",
        b'{"q": "d", "n": true}',
        b"{broken",
        b"[1]",
        b'{"q": "\xff", "n": 1}',
        '{"q": "e\u2028f", "n": 2}'.encode(),
    ]
    found, bad = read(tmp_path, b"\n".join(rows), {"q": records.text, "n": records.whole})
    assert found == [(1, {"q": "a", "n": 1, "extra": True}), (9, {"q": "e\u2028f", "n": 2})]
    assert bad[:3] == [
        "line 2, field 'n': missing",
        "line 3, field 'q': not a text but a list",
        "line 5, field 'n': not a whole number but a truth value",
    ]
    assert [line.partition(":")[0] for line in bad[3:]] == ["line 6", "line 7", "line 8"]


def test_checks() -> None:
    assert records.optional(records.text)(None) is None
    assert records.problem({}, {"a": records.optional(records.text)}) is None
    assert records.problem({"a": 1}, {"a": records.optional(records.text)}) == ("a", "not a text but a whole number")
    assert records.listed(records.text, at_least=1)([]) == "0 items, at least 1 are needed"
    assert records.texts(["a", 1]) == "item 1: not a text but a whole number"
    assert records.one_of("A", "B")("A") is None and records.one_of(1)(True) == "true, not one of 1"
    neither = "not a text but a whole number, and not a list but a whole number"
    assert records.either(records.text, records.texts)(3) == neither


def test_a_record_is_noted_once_however_often_it_is_read(tmp_path: Path) -> None:
    data, source = held(tmp_path, b'{"a": 1}\n{}\n')
    for _ in range(2):
        assert len(list(records.read_records(data.for_benchmark("x"), source, {"a": records.whole}))) == 1
    assert len(data.bad) == 1


def test_raw_control_characters_only_where_allowed(tmp_path: Path) -> None:
    content = b'{"a": "x\ty"}\n'
    assert not read(tmp_path, content, {"a": records.text})[0]
    assert read(tmp_path, content, {"a": records.text}, strict=False)[0] == [(1, {"a": "x\ty"})]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2", b"[1 2]", b"[1,]", b'["\xff"]'])
def test_what_is_no_list_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="not a JSON list"):
        read(tmp_path, content, {}, form="json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(JSON, max_size=6), st.sampled_from([None, 1]), st.integers(1, 40))
def test_a_list_is_read_as_json_reads_it_whatever_the_chunks(
    tmp_path_factory: pytest.TempPathFactory, items: list[Any], indent: int | None, chunk: int
) -> None:
    content = json.dumps(items, ensure_ascii=False, indent=indent).encode()
    data, source = held(tmp_path_factory.mktemp("list"), content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK", chunk)
        found = [(at, value) for at, value in records._items(data.path(source), source, True)]
    assert found == list(enumerate(items, 1))
