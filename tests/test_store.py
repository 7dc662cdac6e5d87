"""The run folder: every record round-trips, torn and corrupt lines cost only themselves, one writer at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from loom_core.api import Evidence, Job, Prompt, RunError, Sample, segment
from loom_core.contract.keys import plain
from loom_core.run.store import Damage, Responses, RunFolder, read_json, read_lines, sample_from
from loom_core.run.writing import Appender, set_torn_tail_aside, to_line, write_json

texts = st.text(st.characters(exclude_categories=()), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(texts, values, max_size=5)


def call(job: str = "j", step: int = 0, *, last: bool = True, finish: str = "stop", text: str = "") -> dict[str, Any]:
    """A response record, as far as the store looks at it."""
    error = "it failed" if finish == "error" else None
    return {
        "job": job,
        "step": step,
        "last": last,
        "finish": finish,
        "key": f"{job}/{step}",
        "text": text,
        "n_in": 1,
        "n_out": 1,
        "timing": {"queued": 0.0, "started": 0.0, "first_token": None, "ended": 1.0},
        "error": error,
    }


@contextmanager
def appending(path: Path) -> Iterator[Appender]:
    """An appender that is closed again."""
    appender = Appender(path)
    try:
        yield appender
    finally:
        appender.close()


@given(st.lists(records, max_size=6))
@settings(max_examples=50)
def test_any_record_round_trips(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("store") / "lines.jsonl"
    with appending(path) as out:
        offsets = [out.append(row) for row in rows]
    assert list(read_lines(path)) == list(zip(offsets, rows, strict=True))


@pytest.mark.parametrize("text", ["\x00\x1f\n\r\u2028\u2029\x85", "\ud800 \udfff alone", "x" * 2**20, '"\\'])
def test_awkward_texts_stay_on_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lines.jsonl"
    with appending(path) as out:
        out.append({"text": text})
        out.append({"next": 1})
    assert path.read_bytes().count(b"\n") == 2
    assert [row for _, row in read_lines(path)] == [{"text": text}, {"next": 1}]


def test_no_nan_is_ever_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_line({"value": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", float("inf"))
    assert not (tmp_path / "x.json").exists()


def test_a_tail_torn_at_any_byte_loses_only_its_record(tmp_path: Path) -> None:
    whole = [call("a", text="é\n"), call("b")]
    last = to_line(call("c", text="torn")).encode()
    head = "".join(map(to_line, whole)).encode()
    for cut in range(len(last)):
        path = tmp_path / "responses.jsonl"
        (tmp_path / "responses.torn").unlink(missing_ok=True)
        path.write_bytes(head + last[:cut])
        assert set_torn_tail_aside(path) == cut
        assert path.read_bytes() == head
        if cut:
            assert (tmp_path / "responses.torn").read_bytes() == last[:cut] + b"\n"
        with appending(path) as out:
            out.append(call("c"))
        found = Responses(path)
        assert [found.ended(job) for job in "abc"] == [True] * 3 and str(found.damage) == ""


def test_a_torn_tail_longer_than_a_block_and_without_any_line(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    path.write_bytes(b"x" * 200_000)
    assert set_torn_tail_aside(path) == 200_000 and path.read_bytes() == b""
    path.write_bytes(to_line(call()).encode() + b"y" * 150_000)
    assert set_torn_tail_aside(path) == 150_000 and Responses(path).ended("j")
    assert set_torn_tail_aside(tmp_path / "none.jsonl") == 0


@given(st.binary(max_size=40).filter(lambda b: b"\n" not in b), st.integers(0, 3))
@settings(max_examples=60)
def test_a_corrupt_line_is_named_and_passed_over(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, place: int
) -> None:
    path = tmp_path_factory.mktemp("store") / "responses.jsonl"
    lines = [to_line(call(job)).encode() for job in "abc"]
    lines.insert(place, garbage + b"\n")
    path.write_bytes(b"".join(lines))
    found = Responses(path)
    assert all(found.ended(job) for job in "abc") and len(found) == 3
    assert found.damage.lines == [place + 1] or (found.damage.foreign == 1 and isinstance(json.loads(garbage), dict))
    assert [row["job"] for job in "abc" for row in found.of(job)] == ["a", "b", "c"]


def test_damage_says_which_lines(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    path.write_text(to_line(call("a")) + "{broken\n" + "[1]\n" + to_line({"job": "b"}) + to_line(call("c")), "ascii")
    text = str(Responses(path).damage)
    assert "2 unreadable line(s)" in text and "line 2, 3" in text and "asked again" in text
    assert "1 record(s) of another kind" in text
    assert str(Damage()) == ""
    with pytest.raises(RunError, match="line 2 is not a record"):
        list(read_lines(path))


def test_records_whose_job_or_step_is_of_another_kind_are_foreign(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    path.write_text(to_line({**call(), "job": []}) + to_line({**call(), "step": "x"}), "ascii")
    assert Responses(path).damage.foreign == 2


def test_the_latest_record_that_is_no_error_wins(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    rows = [call(finish="error"), call(text="one"), call(finish="error"), call(text="two"), call(finish="error")]
    for n in range(1, 6):
        path.write_text("".join(map(to_line, rows[:n])), "ascii")
        found = Responses(path)
        assert (found.ended("j"), found.failed("j")) == (n > 1, n == 1)
        assert found.of("j")[0]["text"] == ("", "one", "one", "two", "two")[n - 1]


def test_a_job_has_ended_only_with_all_its_calls(tmp_path: Path) -> None:
    """A corrupt line may hide the first call of a conversation whose last one is intact: it is not over."""
    path = tmp_path / "responses.jsonl"
    first, second = call("j", 0, last=False), call("j", 1)
    for rows, ended in (([second], False), ([first], False), ([second, first], True), ([first, second], True)):
        path.write_text("".join(map(to_line, rows)), "ascii")
        assert Responses(path).ended("j") is ended
    failed = call("j", 1, finish="error")
    path.write_text(to_line(first) + to_line(failed), "ascii")
    assert Responses(path).failed("j") and not Responses(path).ended("j")
    path.write_text(to_line(first) + to_line(failed) + to_line(second), "ascii")
    assert Responses(path).ended("j") and not Responses(path).failed("j")


def test_calls_of_an_earlier_longer_conversation_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    rows = [call("j", 0, last=False), call("j", 1, last=False), call("j", 2), call("j", 1, text="shorter")]
    path.write_text("".join(map(to_line, rows)), "ascii")
    assert [row["step"] for row in Responses(path).of("j")] == [0, 1]


def _write_from_another_process(path: str, queue: Any) -> None:
    try:
        with RunFolder(Path(path)).writing():
            queue.put("written")
    except RunError as error:
        queue.put(str(error))


def test_a_second_writer_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    folder = RunFolder(tmp_path / "run")
    with folder.writing():
        child = context.Process(target=_write_from_another_process, args=(str(folder.path), queue))
        child.start()
        text = queue.get(timeout=60)
        child.join()
    assert "another loom is writing" in text and f"process {os.getpid()} holds its lock" in text and "--out" in text
    with folder.writing():
        pass


def sample(i: int, contexts: list[str]) -> Sample:
    """A sample with some contexts."""
    parts = [segment("system", "s"), *(segment("context", c) for c in contexts), segment("question", "q?")]
    return Sample(
        id=f"s{i}",
        task="b:t",
        prompt=Prompt(segments=tuple(parts)),
        references=("r", 3, ["x", None]),
        negatives=("n",),
        level="4k",
        length=12,
        depth=0.5,
        evidence=(Evidence(segment=1, start=0, end=1),),
        documents=("d",),
        cluster="c",
        group="g",
        meta={"k": [1, {"a": None}]},
    )


@given(st.lists(st.lists(texts, max_size=3), max_size=4))
@settings(max_examples=40)
def test_samples_and_contexts_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    samples = [sample(i, contexts) for i, contexts in enumerate(rows)]
    assert list(folder.write_samples(samples)) == samples
    found = folder.read_samples()
    assert len(found) == len(samples)
    for one in samples:
        assert found.full("b:t", one.id) == one
        light = found.light("b:t", one.id)
        assert light.prompt.context == "" and light.references == one.references
    distinct = {text for contexts in rows for text in contexts}
    assert len(list(folder.contexts.iterdir())) == len(distinct)


def test_a_context_is_stored_once_and_the_same_bytes_every_time(tmp_path: Path) -> None:
    one, other = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    for folder in (one, other):
        list(folder.write_samples([sample(0, ["same"]), sample(1, ["same"])]))
    (first,), (second,) = one.contexts.iterdir(), other.contexts.iterdir()
    assert first.name == second.name and first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("damage", [b"", b"no gzip", zlib.compress(b"x"), "missing", "flipped"])
def test_a_damaged_context_is_one_clear_error_and_preparing_again_mends_it(tmp_path: Path, damage: Any) -> None:
    folder = RunFolder(tmp_path)
    list(folder.write_samples([sample(0, ["text " * 50])]))
    (path,) = folder.contexts.iterdir()
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        data = bytearray(path.read_bytes())
        data[12] ^= 0xFF
        path.write_bytes(data)
    else:
        path.write_bytes(damage)
    with pytest.raises(RunError, match="stored context cannot be read") as caught:
        folder.read_samples().full("b:t", "s0")
    assert path.name in caught.value.where and "run again" in caught.value.hint
    list(folder.write_samples([sample(0, ["text " * 50])]))
    assert folder.read_samples().full("b:t", "s0").prompt.context == "text " * 50


def jobs(n: int) -> list[Job]:
    """Some planned jobs."""
    return [Job(key=f"k{i}", sample="s", task="t", arm="dense", repeat=0, group="g", length=i) for i in range(n)]


def test_jobs_round_trip_and_a_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.write_jobs(jobs(40)) == 40 and list(folder.read_jobs()) == jobs(40)
    data = folder.jobs.read_bytes()
    for broken in (data[: len(data) // 2], b"", b"no gzip"):
        folder.jobs.write_bytes(broken)
        with pytest.raises(RunError, match="planned jobs cannot be read"):
            list(folder.read_jobs())
    folder.jobs.unlink()
    with pytest.raises(RunError, match="planned jobs cannot be read"):
        list(folder.read_jobs())


def test_json_files_appear_whole(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_json(path, {"a": "é\ud800".encode("utf-8", "replace").decode()})
    assert read_json(path) == {"a": "é?"} and list(tmp_path.iterdir()) == [path]
    with pytest.raises(RunError, match=r"other\.json cannot be read"):
        read_json(tmp_path / "other.json")


def test_a_sample_survives_its_record() -> None:
    one = sample(0, ["c"])
    assert sample_from(json.loads(json.dumps(plain(one)))) == one


def test_discard_leaves_nothing_behind_but_never_touches_answers(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.writing():
        list(folder.write_samples([sample(0, ["c"])]))
        folder.write_jobs(jobs(1))
        write_json(folder.manifest, {})
        folder.discard()
    assert not folder.path.exists()
    folder.path.mkdir()
    folder.responses.write_text(to_line(call()))
    folder.discard()
    assert folder.responses.exists()


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / ".lock").touch()
    folder.refuse_foreign()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="not a run folder") as caught:
        folder.refuse_foreign()
    assert "thesis.tex" in caught.value.why
