"""A run made again from its folder or its bundle: the same, or a refusal that says why; hostile archives."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from loom_kit.runs import make_run, retrieves
from loom_report.bundles import bundle, opened

from loom_core.api import RunError
from loom_core.run.store import RunFolder, read_json
from loom_core.run.writing import write_json


def test_a_bundle_makes_the_run_again(loom: Any) -> None:
    loom("run", "fable@n=6:tell", "--model", "toy", "--out", "first")
    loom("report", "first", "--bundle", "first.tar.gz")
    with tarfile.open(loom.cwd / "first.tar.gz") as archive:
        names = archive.getnames()
    assert "manifest.json" in names and "scores-fable_exact@1.jsonl" in names
    assert not any("context" in name for name in names)
    (loom.cwd / "elsewhere").mkdir()
    done = loom("reproduce", "first.tar.gz", "--out", "second", "--format", "json")
    made = json.loads(done.out)
    scores = [score for row in made["compared"]["totals"] for score in row["scores"]]
    assert scores and all(score["delta"]["value"] == 0 for score in scores)
    assert made["compared"]["agreement"][0]["share"] == 1.0
    assert len(loom.records(loom.cwd / "second")) == 6
    again = loom("reproduce", "first", "--out", "third", "-q")
    assert "made again" in again.out and "100 %" in again.out


def test_the_quickstart_is_made_again_token_for_token(loom: Any) -> None:
    """A real model through the hf server: its bundle, run again elsewhere, says the same in every token."""
    pytest.importorskip("loom_server_hf.engine")
    loom("run", "--limit", "2", "--out", "first", "-q")
    loom("report", "first", "--bundle", "first.tar.gz")
    made = json.loads(loom("reproduce", "first.tar.gz", "--out", "second", "--format", "json").out)
    rows = made["compared"]["agreement"]
    assert rows[0]["arm"] == "dense" and len(rows) == 4
    assert all((row["share"], row["n"], row["unit"]) == (1.0, 2, "tokens") for row in rows)
    assert all(s["delta"]["value"] == 0 for row in made["compared"]["totals"] for s in row["scores"])
    compared = json.loads(loom("compare", "first", "second", "--format", "json").out)
    assert not any(s["delta"]["significant"] for row in compared["totals"] for s in row["scores"])
    assert loom("diff", "first", "second").code == 0


@pytest.mark.parametrize(
    ("where", "name", "value", "says"),
    [
        ("model", "digest", "0" * 64, "model digest: 0000"),
        ("model", "template", "other", "tokenizer template: other"),
    ],
)
def test_another_model_is_refused(loom: Any, where: str, name: str, value: str, says: str) -> None:
    loom("run", "fable@n=2:tell", "--model", "toy", "--out", "first")
    folder = RunFolder(loom.cwd / "first")
    plan = read_json(folder.plan)
    plan[where][name] = value
    write_json(folder.plan, plan)
    done = loom("reproduce", "first", "--out", "second", code=1)
    assert "this would not be the same run" in done.err and says in done.err
    assert not (loom.cwd / "second").exists()


def test_another_task_version_is_refused(loom: Any) -> None:
    loom("run", "fable@n=2:tell", "--model", "toy", "--out", "first")
    folder = RunFolder(loom.cwd / "first")
    plan = read_json(folder.plan)
    plan["tasks"][0]["version"] = "0"
    write_json(folder.plan, plan)
    assert "fable:tell.version: 0 → " in loom("reproduce", "first", "--out", "second", code=1).err


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", retrieves({}))
    for name in ("a.tar.gz", "b.tar.gz"):
        bundle(folder, tmp_path / name)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    with opened(tmp_path / "a.tar.gz") as other:
        assert read_json(other.plan) == read_json(folder.plan)
        assert other.responses.read_bytes() == folder.responses.read_bytes()
        assert other.scores("exact_match", "1").exists()
        place = other.path
    assert not place.exists()


def hostile_archive(path: Path) -> None:
    """Members that climb out, link away, or are no files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("../escaped.json", "/escaped.json", "scores-../../escaped.jsonl", "scores-x/../escaped.jsonl"):
            entry = tarfile.TarInfo(name)
            entry.size = 2
            archive.addfile(entry, io.BytesIO(b"{}"))
        for name, kind in (("plan.json", tarfile.SYMTYPE), ("manifest.json", tarfile.LNKTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/hostname"
            archive.addfile(entry)
        pipe = tarfile.TarInfo("samples.jsonl")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
    path.write_bytes(gzip.compress(buffer.getvalue()))


def test_a_hostile_archive_writes_nothing(tmp_path: Path) -> None:
    hostile_archive(tmp_path / "bad.tar.gz")
    with opened(tmp_path / "bad.tar.gz") as folder:
        assert list(folder.path.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar.gz"]


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no tar" * 200, mtime=0)],
    ids=["empty", "no archive", "no tar"],
)
def test_what_is_no_bundle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar.gz").write_bytes(content)
    with pytest.raises(RunError, match="not a bundle"), opened(tmp_path / "x.tar.gz"):
        pass


def test_a_folder_without_a_run(tmp_path: Path, loom: Any) -> None:
    with pytest.raises(RunError, match="nothing to bundle"):
        bundle(RunFolder(tmp_path), tmp_path / "x.tar.gz")
    (loom.cwd / "empty").mkdir()
    assert "nothing to reproduce" in loom("reproduce", "empty", code=1).err
