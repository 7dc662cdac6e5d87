"""Downloads of pinned files against a local stand-in for their hosts: verification, retries, no network, the lock."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from loom_kit.upstream import Upstream, pinned, put, send, serving, sha256

from loom_core.api import DataDir, DataError, DataSource, Unavailable

CONTENT = "first line\r\nsecond – línea\n".encode()
URL = "/owner/repo/abc123/dir/file.txt"


def source(path: str = "dir/file.txt", data: bytes | None = CONTENT) -> DataSource:
    return pinned(path, data)


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving() as running:
        yield running


@pytest.fixture
def open_dir(tmp_path: Path) -> Callable[..., DataDir]:
    """A DataDir in the test's folder: asking `upstream`, or offline without one; `mirror=True` gives it a mirror."""

    def make(upstream: Upstream | None = None, *, mirror: bool = False) -> DataDir:
        folder = tmp_path / "mirror" if mirror else None
        if upstream is not None:
            return upstream.data_dir(tmp_path / "cache", folder)
        return DataDir(mirror=folder, cache=tmp_path / "cache", offline=True)

    return make


def test_download_then_cache(upstream: Upstream, open_dir: Callable[..., DataDir], tmp_path: Path) -> None:
    upstream.files[URL] = CONTENT
    data = open_dir(upstream, mirror=True)
    assert data.missing([source()]) == (source(),)
    path = data.path(source())
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "cache")
    assert [row.origin for row in data.used()] == ["download"]
    again = open_dir()
    assert again.path(source()) == path
    assert [row.origin for row in again.used()] == ["cache"]
    assert again.missing([source()]) == ()
    assert len(upstream.asked) == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_hub_addresses_and_token(
    upstream: Upstream, open_dir: Callable[..., DataDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    upstream.files["/datasets/o/d/resolve/r1/x.json"] = CONTENT
    upstream.files[URL] = CONTENT
    data = open_dir(upstream)
    data.path(pinned("x.json", CONTENT, origin="hf:o/d@r1"))
    data.path(source())
    assert upstream.tokens == ["Bearer hf_planted", None]
    again = open_dir(upstream)
    assert again.missing([pinned("x.json", CONTENT, origin="hf:o/d@r1")]) == ()
    again.path(pinned("x.json", CONTENT, origin="hf:o/d@r1"))
    assert [row.origin for row in again.used()] == ["cache"]


def test_wrong_content_upstream_is_not_kept(
    upstream: Upstream, open_dir: Callable[..., DataDir], tmp_path: Path
) -> None:
    upstream.files[URL] = CONTENT.replace(b"f", b"F")
    with pytest.raises(DataError, match="altered data file"):
        open_dir(upstream).path(source())
    upstream.files[URL] = CONTENT + b"more"
    with pytest.raises(DataError, match="size differs from its pin"):
        open_dir(upstream).path(source())
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_gone_upstream(upstream: Upstream, open_dir: Callable[..., DataDir]) -> None:
    with pytest.raises(DataError, match=r"(?s)HTTP 404.*update the plugin") as caught:
        open_dir(upstream).path(source())
    assert not isinstance(caught.value, Unavailable)


def test_trouble_is_tried_again(upstream: Upstream, open_dir: Callable[..., DataDir]) -> None:
    upstream.files[URL] = CONTENT

    def busy_once(handler: BaseHTTPRequestHandler) -> bool:
        if len(upstream.asked) > 1:
            return False
        send(handler, 503, b"")
        return True

    upstream.behaviour = busy_once
    assert open_dir(upstream).path(source()).read_bytes() == CONTENT


def test_broken_off_download(upstream: Upstream, open_dir: Callable[..., DataDir], tmp_path: Path) -> None:
    def short(handler: BaseHTTPRequestHandler) -> bool:
        send(handler, 200, CONTENT[:5], announced=len(CONTENT))
        return True

    upstream.behaviour = short
    with pytest.raises(DataError, match=r"(?s)was interrupted.*2 attempts"):
        open_dir(upstream).path(source())
    assert len(upstream.asked) == 2
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_no_network_is_unavailable_and_asked_once(
    open_dir: Callable[..., DataDir], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = open_dir(upstream)
    object.__setattr__(dead, "bases", {"github": "http://127.0.0.1:1", "hf": "http://127.0.0.1:1"})
    for path in ("a", "b"):
        with pytest.raises(Unavailable, match="cannot be reached"):
            dead.path(source(path))
    object.__setattr__(dead, "bases", {"github": upstream.base, "hf": upstream.base})
    with pytest.raises(Unavailable):
        dead.path(source("c"))
    assert upstream.asked == []


def test_fetch_replaces_a_damaged_cache(upstream: Upstream, open_dir: Callable[..., DataDir], tmp_path: Path) -> None:
    upstream.files[URL] = CONTENT
    put(tmp_path, "cache/data/github/owner--repo/abc123/dir/file.txt", b"x")
    with pytest.raises(DataError, match="truncated"):
        open_dir(upstream).path(source())
    assert open_dir(upstream).fetch(source()).read_bytes() == CONTENT


def test_fetch_leaves_a_damaged_mirror_alone(
    upstream: Upstream, open_dir: Callable[..., DataDir], tmp_path: Path
) -> None:
    file = put(tmp_path, "mirror/bench/dir/file.txt", b"x")
    with pytest.raises(DataError, match="truncated"):
        open_dir(upstream, mirror=True).fetch(source())
    assert file.read_bytes() == b"x"


def test_a_cache_that_cannot_be_written(upstream: Upstream, open_dir: Callable[..., DataDir], tmp_path: Path) -> None:
    upstream.files[URL] = CONTENT
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(DataError, match=r"(?s)cache cannot be written.*LOOM_CACHE"):
        open_dir(upstream).path(source())


def test_member_is_downloaded_with_its_archive_once(upstream: Upstream, open_dir: Callable[..., DataDir]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", CONTENT)
        archive.writestr("y", b"why")
    upstream.files["/owner/repo/abc123/d.zip"] = buffer.getvalue()
    data = open_dir(upstream)
    assert data.path(source("d.zip#x")).read_bytes() == CONTENT
    assert data.path(source("d.zip#y", b"why")).read_bytes() == b"why"
    assert len(upstream.asked) == 1
    assert open_dir().path(source("d.zip#x")).read_bytes() == CONTENT


def test_first_download_is_recorded_and_checked(
    upstream: Upstream, open_dir: Callable[..., DataDir], tmp_path: Path
) -> None:
    upstream.files[URL] = CONTENT
    unknown = source(data=None)
    path = open_dir(upstream).path(unknown)
    assert open_dir().locked() == {unknown.pin: {"sha256": sha256(CONTENT), "bytes": len(CONTENT)}}
    path.write_bytes(b"changed")
    with pytest.raises(DataError, match=r"(?s)altered.*recorded at the first download"):
        open_dir().path(unknown)
    path.unlink()
    upstream.files[URL] = b"changed upstream"
    with pytest.raises(DataError, match="recorded at the first download"):
        open_dir(upstream).path(unknown)
    open_dir().forget([unknown.pin])
    assert open_dir(upstream).path(unknown).read_bytes() == b"changed upstream"


def test_a_broken_lock_file_is_named(tmp_path: Path, open_dir: Callable[..., DataDir]) -> None:
    put(tmp_path, "cache/lock.json", b'{"x": 3}')
    with pytest.raises(DataError, match=r"(?s)lock file.*lock\.json"):
        open_dir().locked()


def test_lock_keeps_the_entries_of_others(tmp_path: Path, open_dir: Callable[..., DataDir]) -> None:
    for i in range(8):
        put(tmp_path, f"mirror/bench/{i}", bytes([i, i]))
    threads = [threading.Thread(target=open_dir(mirror=True).path, args=(source(str(i), None),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads((tmp_path / "cache/lock.json").read_text())) == 8
