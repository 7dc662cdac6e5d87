"""Pins: parsed, refused, turned into addresses, read from a plugin's file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from loom_kit.upstream import put, sha256

from loom_core.api import DataDir, DataError, DataSource, Unavailable, read_pins
from loom_core.data.pins import BASES, Pin

SHARED = Path(os.environ.get("LOOM_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))


def test_urls_of_both_hosts() -> None:
    github = Pin.parse("github:o/r@c0ffee:a b/ü#1.txt".replace("#1", ""))
    assert github.url(BASES) == "https://raw.githubusercontent.com/o/r/c0ffee/a%20b/%C3%BC.txt"
    hub = Pin.parse("hf:o/r@refs/pr/1:data.zip#data/x.jsonl")
    assert hub.url(BASES) == "https://huggingface.co/datasets/o/r/resolve/refs%2Fpr%2F1/data.zip"
    assert hub.member == "data/x.jsonl"
    assert hub.upstream_path == "data.zip#data/x.jsonl"


@pytest.mark.parametrize(
    "text",
    ["", "github:o/r:path", "ftp:o/r@1:path", "github:o/r@1:", "github:o/r@1:../x", "github:o/r@1:/etc/x", "hf:a@b:c#",
     "hf:a@b:z.zip#../../x", "hf:a@b:c\\d", "hf:../../a@b:c", "hf:a@../..:c"],
)  # fmt: skip
def test_malformed_pins(text: str) -> None:
    with pytest.raises(DataError, match="pin is malformed"):
        Pin.parse(text)


@given(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=30))
def test_no_pin_leaves_its_cache_folder(path: str) -> None:
    cache = Path("/cache")
    try:
        pin = Pin.parse(f"hf:a/b@main:{path}")
    except DataError:
        return
    normal = os.path.normpath(pin.cached_at(cache))
    assert normal.startswith("/cache/data/hf/a--b/main/")


def test_read_pins(tmp_path: Path) -> None:
    text = f"""
[bench]
repo = "o/r"
commit = "abc"
licence = "MIT"
files = [{{ path = "a.txt", sha256 = "{sha256(b"a")}", bytes = 1 }}, {{ path = "b.txt", sha256 = "", bytes = -1 }}]
[hub]
dataset = "d/s"
revision = "r1"
folder = "bench"
files = [{{ path = "z.zip#m/x", sha256 = "", bytes = -1 }}]
"""
    put(tmp_path, "pins.toml", text.encode())
    pins = read_pins(tmp_path / "plugin.py")
    assert list(pins) == ["bench/a.txt", "bench/b.txt", "bench/z.zip#m/x"]
    assert pins["bench/a.txt"] == DataSource(
        pin="github:o/r@abc:a.txt", folder="bench", sha256=sha256(b"a"), n_bytes=1, licence="MIT"
    )
    assert (pins["bench/b.txt"].sha256, pins["bench/b.txt"].n_bytes) == ("", None)
    assert pins["bench/z.zip#m/x"].pin == "hf:d/s@r1:z.zip#m/x"
    more = text.replace("bytes = -1 }]", f'git_blob = "{"a" * 40}", bytes = -1 }}]', 1) + (
        'archives = [{ path = "z.zip", sha256 = "", git_blob = "' + "b" * 40 + '", bytes = 7 }]'
    )
    put(tmp_path, "more.toml", more.encode())
    pins = read_pins(tmp_path / "more.toml")
    assert pins["bench/b.txt"].git_blob == "a" * 40
    assert pins["bench/z.zip#m/x"].archive == DataSource(
        pin="hf:d/s@r1:z.zip", folder="bench", n_bytes=7, git_blob="b" * 40
    )
    put(tmp_path, "bad.toml", more.replace("a" * 40, "a" * 39).encode())
    with pytest.raises(DataError, match=r"b\.txt: git_blob is not 40 hexadecimal digits"):
        read_pins(tmp_path / "bad.toml")
    put(tmp_path, "bad.toml", text.replace('commit = "abc"', "").encode())
    with pytest.raises(DataError, match=r"(?s)pins of a plugin.*bad\.toml.*commit"):
        read_pins(tmp_path / "bad.toml")
    with pytest.raises(DataError, match="pins of a plugin"):
        read_pins(tmp_path / "none" / "plugin.py")


ROOT = Path(__file__).resolve().parents[1]
PLUGIN_PINS = sorted(ROOT.glob("plugins/*/loom_*/pins.toml"))
MOVING = {"hf:THUDM/LongBench@main", "hf:THUDM/LongBench-v2@main"}
"""Data sets whose commit nobody has seen: a branch is pinned, and the first download recorded."""

UNSEEN = {"hf:Jonaszky123/L-CiteEval", "hf:namlh2004/hotpotqa"}
"""Data sets at a commit that was seen in use, of whose files no digest was."""


@pytest.mark.parametrize("file", PLUGIN_PINS, ids=lambda path: path.parent.name)
def test_every_pin_of_a_plugin_is_a_commit_and_a_digest(file: Path) -> None:
    """A pin of a branch names another file tomorrow; one without a digest trusts whatever comes first."""
    for source in read_pins(file).values():
        pin = Pin.parse(source.pin)
        name = f"{pin.host}:{pin.repo}"
        moving = f"{name}@{pin.revision}" in MOVING
        assert moving or re.fullmatch("[0-9a-f]{40}", pin.revision), f"{source.pin} names no commit"
        if moving or name in UNSEEN or source.sha256 or source.git_blob:
            continue
        whole = source.archive
        if whole is not None:
            assert whole.sha256 or whole.git_blob, f"the archive of {source.pin} has no digest"
        else:
            assert source.folder == "ruler" and "/json/" in pin.path, f"{source.pin} has no digest"


def test_shared_pins_agree_with_the_shared_mirror(tmp_path: Path) -> None:
    """Every pinned file that the mirror holds is whole or a labelled extract."""
    if not (SHARED / "pins.toml").is_file():
        pytest.skip(f"no pins at {SHARED}")
    data = DataDir(mirror=SHARED / "data", cache=tmp_path, offline=True)
    pins = read_pins(SHARED / "pins.toml").values()
    absent = data.missing(pins)
    here = [pin for pin in pins if pin not in absent]
    for pin in here:
        data.path(pin)
    whole = [row for row in data.used() if not row.extract]
    assert len(data.used()) == len(here) > 200
    assert {row.sha256 for row in whole} <= {pin.sha256 for pin in here} | {
        row["sha256"] for row in data.locked().values()
    }
    for pin in absent:
        with pytest.raises(Unavailable):
            data.path(pin)
