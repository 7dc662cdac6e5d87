"""Pinned files in a mirror or the cache: whole, damaged, cut, packed, missing; and what each failure says."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from loom_kit.upstream import git_blob, pinned, put, sha256

from loom_core.api import DataDir, DataError, DataSource, LoomError, Unavailable
from loom_core.data.digests import LFS

CONTENT = "first line\r\nsecond – línea\n".encode()
MEMBER = "data.zip#data/x.jsonl"


def source(path: str = "dir/file.txt", data: bytes | None = CONTENT) -> DataSource:
    return pinned(path, data)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def open_dir(tmp_path: Path) -> Callable[..., DataDir]:
    """An offline DataDir in the test's folder; `mirror=True` gives it a mirror."""

    def make(*, mirror: bool = False) -> DataDir:
        (tmp_path / "mirror").mkdir(exist_ok=True)
        return DataDir(mirror=tmp_path / "mirror" if mirror else None, cache=tmp_path / "cache", offline=True)

    return make


def test_mirror_first(tmp_path: Path, open_dir: Callable[..., DataDir]) -> None:
    data = open_dir(mirror=True)
    file = put(tmp_path, "mirror/bench/dir/file.txt", CONTENT)
    assert data.path(source()) == file
    assert data.text(source()) == CONTENT.decode()
    (row,) = data.used()
    assert (row.sha256, row.n_bytes, row.extract, row.origin) == (sha256(CONTENT), len(CONTENT), False, "mirror")


@pytest.mark.parametrize("damage", ["truncated", "altered"])
@pytest.mark.parametrize("place", ["mirror/bench/dir/file.txt", "cache/data/github/owner--repo/abc123/dir/file.txt"])
def test_damage_is_named(tmp_path: Path, open_dir: Callable[..., DataDir], damage: str, place: str) -> None:
    file = put(tmp_path, place, CONTENT[:-3] if damage == "truncated" else CONTENT.replace(b"f", b"F"))
    with pytest.raises(DataError) as caught:
        open_dir(mirror=True).for_benchmark("needles@variant=a").path(source())
    text = str(caught.value)
    assert not isinstance(caught.value, Unavailable)
    assert caught.value.what == f"{damage} data file dir/file.txt"
    for part in (
        str(file),
        source().pin,
        sha256(CONTENT)[:16],
        f"{len(CONTENT)} bytes",
        "loom data fetch needles@variant=a",
    ):
        assert part in text


def test_missing_and_offline_is_unavailable(tmp_path: Path, open_dir: Callable[..., DataDir]) -> None:
    with pytest.raises(Unavailable) as caught:
        open_dir(mirror=True).path(source())
    text = str(caught.value)
    for part in ("missing data file dir/file.txt", f"{len(CONTENT)} bytes", source().pin, "mirror", "offline"):
        assert part in text
    assert "loom data fetch bench" in caught.value.hint
    assert isinstance(LoomError.from_json(caught.value.to_json()), DataError)


def test_extract_is_labelled_and_checked(tmp_path: Path, open_dir: Callable[..., DataDir]) -> None:
    cut = CONTENT[:10]
    put(tmp_path, "mirror/bench/dir/file.txt", cut)
    listed = f'[[file]]\npath = "dir/file.txt"\nsha256 = "{sha256(cut)}"\nbytes = {len(cut)}\n'
    put(tmp_path, "mirror/bench/EXTRACT.toml", listed.encode())
    for known in (source(), source(data=None)):
        data = open_dir(mirror=True)
        assert data.path(known).read_bytes() == cut
        assert [row.extract for row in data.used()] == [True]
        assert data.locked() == {}
    put(tmp_path, "mirror/bench/dir/file.txt", cut + b"!")
    with pytest.raises(DataError, match="data file"):
        open_dir(mirror=True).path(source())
    put(tmp_path, "mirror/bench/dir/file.txt", CONTENT)
    data = open_dir(mirror=True)
    data.path(source())
    assert [row.extract for row in data.used()] == [False]


def test_a_broken_list_of_extracts_is_named(tmp_path: Path, open_dir: Callable[..., DataDir]) -> None:
    put(tmp_path, "mirror/bench/dir/file.txt", CONTENT)
    put(tmp_path, "mirror/bench/EXTRACT.toml", b"[[file]]\npath = 3")
    with pytest.raises(DataError, match=r"(?s)list of extracts.*EXTRACT\.toml"):
        open_dir(mirror=True).path(source())


def test_text_that_is_not_utf8(tmp_path: Path, open_dir: Callable[..., DataDir]) -> None:
    put(tmp_path, "mirror/bench/dir/file.txt", b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        open_dir(mirror=True).text(source(data=b"\xff\xfe"))


@pytest.mark.parametrize("place", ["data/x.jsonl", "data.zip"])
def test_member_unpacked_or_in_its_archive(tmp_path: Path, open_dir: Callable[..., DataDir], place: str) -> None:
    content = CONTENT if place != "data.zip" else zipped({"data/x.jsonl": CONTENT, "other": b"no"})
    put(tmp_path, f"mirror/bench/{place}", content)
    for _ in range(2):
        data = open_dir(mirror=True)
        assert data.path(source(MEMBER)).read_bytes() == CONTENT
        assert [(row.origin, row.extract) for row in data.used()] == [("mirror", False)]


def test_member_of_a_tar(tmp_path: Path, open_dir: Callable[..., DataDir]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("in/x")
        info.size = len(CONTENT)
        archive.addfile(info, io.BytesIO(CONTENT))
    put(tmp_path, "mirror/bench/up/d.tar.gz", buffer.getvalue())
    assert open_dir(mirror=True).path(source("up/d.tar.gz#in/x")).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped({"y": b""}), "no member"),
        (b"no archive", "cannot be unpacked"),
        (zipped({"data/x.jsonl": b"?"}), "data file"),
    ],
    ids=["another member", "no archive", "altered member"],
)
def test_bad_archives(tmp_path: Path, open_dir: Callable[..., DataDir], content: bytes, message: str) -> None:
    put(tmp_path, "mirror/bench/data.zip", content)
    with pytest.raises(DataError, match=f"(?s){message}.*loom data fetch bench"):
        open_dir(mirror=True).path(source(MEMBER))
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_member_of_a_cut_archive_is_an_extract_and_stays_out_of_the_cache(
    tmp_path: Path, open_dir: Callable[..., DataDir]
) -> None:
    archive = zipped({"data/x.jsonl": b"cut"})
    put(tmp_path, "mirror/bench/data.zip", archive)
    put(tmp_path, "mirror/bench/EXTRACT.toml", f'[[file]]\npath="data.zip"\nsha256="{sha256(archive)}"\n'.encode())
    data = open_dir(mirror=True)
    assert data.path(source(MEMBER)).read_bytes() == b"cut"
    assert [row.extract for row in data.used()] == [True]
    with pytest.raises(Unavailable):
        open_dir().path(source(MEMBER))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


STAND_INS = [(place, content) for place in ("mirror", "cache", "member") for content in (POINTER, b"", b"\n")]


@pytest.mark.parametrize(("place", "content"), [*STAND_INS, ("extract", POINTER)])
def test_what_stands_in_for_a_file_is_refused_by_name(
    tmp_path: Path, open_dir: Callable[..., DataDir], place: str, content: bytes
) -> None:
    asked = source("z.zip#dir/file.txt" if place == "member" else "dir/file.txt", None)
    if place == "cache":
        put(tmp_path, "cache/data/github/owner--repo/abc123/dir/file.txt", content)
    elif place == "member":
        put(tmp_path, "mirror/bench/z.zip", zipped({"dir/file.txt": content}))
    else:
        put(tmp_path, "mirror/bench/dir/file.txt", content)
    if place == "extract":
        put(
            tmp_path, "mirror/bench/EXTRACT.toml", f'file=[{{path="dir/file.txt",sha256="{sha256(content)}"}}]'.encode()
        )
    word = "git-lfs pointer" if content == POINTER else f"placeholder of {len(content)} byte"
    with pytest.raises(DataError, match=rf"{word}s? in place of .*dir/file\.txt") as caught:
        open_dir(mirror=True).path(asked)
    assert "dir" in caught.value.where and caught.value.hint
    assert open_dir().locked() == {}


def test_gits_id_is_a_pin(tmp_path: Path, open_dir: Callable[..., DataDir]) -> None:
    known = replace(source(data=None), git_blob=git_blob(CONTENT))
    file = put(tmp_path, "mirror/bench/dir/file.txt", CONTENT)
    assert open_dir(mirror=True).path(known) == file
    assert open_dir().locked() == {}
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"(?s)altered data file dir/file\.txt.*git " + git_blob(CONTENT)[:10]):
        open_dir(mirror=True).path(known)


def test_an_archive_is_verified_before_a_member_is_taken(tmp_path: Path, open_dir: Callable[..., DataDir]) -> None:
    archive = zipped({"data/x.jsonl": CONTENT})
    pinned_archive = replace(source("data.zip", None), git_blob=git_blob(archive))
    member = replace(source(MEMBER, None), archive=pinned_archive)
    file = put(tmp_path, "mirror/bench/data.zip", archive)
    assert open_dir(mirror=True).path(member).read_bytes() == CONTENT
    file.write_bytes(zipped({"data/x.jsonl": CONTENT.upper()}))
    with pytest.raises(DataError, match=r"altered data file data\.zip"):
        open_dir(mirror=True).path(member)


def test_a_member_longer_than_its_pin_is_not_unpacked_to_its_end(
    tmp_path: Path, open_dir: Callable[..., DataDir]
) -> None:
    put(tmp_path, "mirror/bench/data.zip", zipped({"data/x.jsonl": b"\0" * 50_000_000}))
    with pytest.raises(DataError, match=r"(?s)too long.*more than 30 bytes"):
        open_dir(mirror=True).path(replace(source(MEMBER, None), n_bytes=30))


def test_a_cached_archive_serves_its_other_members_offline(tmp_path: Path, open_dir: Callable[..., DataDir]) -> None:
    put(tmp_path, "cache/data/github/owner--repo/abc123/data.zip", zipped({"data/x.jsonl": CONTENT}))
    assert open_dir().missing([source(MEMBER)]) == ()
    assert open_dir().path(source(MEMBER)).read_bytes() == CONTENT


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOM_DATA", "LOOM_CACHE", "LOOM_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    data = DataDir.from_environment()
    assert (data.mirror, data.cache, data.offline) == (None, Path.home() / ".cache" / "loom", False)
    monkeypatch.setenv("LOOM_DATA", str(tmp_path))
    monkeypatch.setenv("LOOM_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("LOOM_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    data = DataDir.from_environment()
    assert (data.mirror, data.cache, data.offline) == (tmp_path, tmp_path / "c", True)
    assert data.bases["hf"] == "https://hub.example"
    monkeypatch.setenv("LOOM_OFFLINE", "0")
    assert not DataDir.from_environment().offline
    with pytest.raises(DataError, match=r"(?s)mirror folder does not exist.*--data-dir"):
        DataDir.from_environment(tmp_path / "none")


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_nothing_but_the_pinned_content_is_ever_returned(
    tmp_path_factory: pytest.TempPathFactory, pinned: bytes, held: bytes
) -> None:
    folder = tmp_path_factory.mktemp("property")
    put(folder, "mirror/bench/f", held)
    data = DataDir(mirror=folder / "mirror", cache=folder / "cache", offline=True)
    if pinned == held and not held.startswith(LFS):
        assert data.path(source("f", pinned)).read_bytes() == pinned
    else:
        with pytest.raises(DataError):
            data.path(source("f", pinned))
        assert data.used() == ()
