"""Files of the hub, fetched through its own library from a local stand-in: cache, access, redirects, refusals."""

from __future__ import annotations

import builtins
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from loom_kit.upstream import COMMIT, Upstream, git_blob, pinned, put, send, serving, sha256

from loom_core.api import DataDir, DataError, DataSource, Unavailable

CONTENT = b'{"input": "x"}\n'
URL = "/datasets/o/d/resolve/r1/x.json"
Behaviour = Callable[[BaseHTTPRequestHandler], bool]


def source(data: bytes | None = CONTENT, path: str = "x.json", revision: str = "r1") -> DataSource:
    return pinned(path, data, origin=f"hf:o/d@{revision}")


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Upstream]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serving() as running:
        running.files[URL] = CONTENT
        yield running


def test_fetched_once_and_found_again_without_a_network(upstream: Upstream, tmp_path: Path) -> None:
    data = upstream.data_dir(tmp_path)
    path = data.path(source())
    assert path.read_bytes() == CONTENT and path.is_relative_to(tmp_path / "hub")
    assert [row.origin for row in data.used()] == ["download"]
    offline = replace(upstream.data_dir(tmp_path), offline=True)
    assert offline.path(source()).read_bytes() == CONTENT
    assert offline.missing([source()]) == ()
    assert upstream.asked == [URL]


@pytest.mark.parametrize("code", [401, 403])
def test_a_gated_set_without_a_token_is_unavailable_and_says_where_to_ask(
    upstream: Upstream, tmp_path: Path, code: int
) -> None:
    def gated(handler: BaseHTTPRequestHandler) -> bool:
        send(handler, code, b"", headers={"X-Error-Code": "GatedRepo"})
        return True

    upstream.behaviour = gated
    with pytest.raises(Unavailable) as caught:
        upstream.data_dir(tmp_path).path(source())
    text = str(caught.value)
    for part in ("gated", "x.json", "hf:o/d@r1:x.json", f"{upstream.base}/datasets/o/d", "HF_TOKEN", "--data-dir"):
        assert part in text
    assert str(tmp_path) not in text and not list(tmp_path.rglob("*.incomplete"))


def test_a_gated_and_renamed_set_is_read_with_a_token(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    moved = URL.replace("/o/d/", "/new-owner/d/")
    upstream.files[moved] = CONTENT

    def renamed_and_gated(handler: BaseHTTPRequestHandler) -> bool:
        if handler.headers.get("Authorization") != "Bearer hf_planted":
            send(handler, 401, b"", headers={"X-Error-Code": "GatedRepo"})
        elif handler.path == URL:
            send(handler, 307, b"", headers={"Location": moved})
        else:
            return False
        return True

    upstream.behaviour = renamed_and_gated
    assert upstream.data_dir(tmp_path).path(source()).read_bytes() == CONTENT
    assert upstream.asked[-1] == moved


@pytest.mark.parametrize("kind", ["EntryNotFound", "RevisionNotFound", ""])
def test_gone_upstream(upstream: Upstream, tmp_path: Path, kind: str) -> None:
    def gone(handler: BaseHTTPRequestHandler) -> bool:
        send(handler, 404, b"", headers={"X-Error-Code": kind})
        return True

    upstream.behaviour = gone
    with pytest.raises(DataError, match=r"(?s)hub refused.*HTTP 404.*update the plugin") as caught:
        upstream.data_dir(tmp_path).path(source())
    assert not isinstance(caught.value, Unavailable)


def test_another_size_is_refused_before_a_byte_is_fetched(upstream: Upstream, tmp_path: Path) -> None:
    upstream.files[URL] = CONTENT * 2
    with pytest.raises(DataError, match="size differs from its pin"):
        upstream.data_dir(tmp_path).path(source())
    assert upstream.asked == []


def test_altered_content_is_refused(upstream: Upstream, tmp_path: Path) -> None:
    upstream.files[URL] = CONTENT.upper()
    with pytest.raises(DataError, match=r"altered data file x\.json"):
        upstream.data_dir(tmp_path).path(source())


def test_a_damaged_cache_is_fetched_anew(upstream: Upstream, tmp_path: Path) -> None:
    upstream.data_dir(tmp_path).path(source()).write_bytes(CONTENT[:-2])
    with pytest.raises(DataError, match=r"truncated data file x\.json"):
        upstream.data_dir(tmp_path).path(source())
    assert upstream.data_dir(tmp_path).fetch(source()).read_bytes() == CONTENT


def test_trouble_is_tried_again(upstream: Upstream, tmp_path: Path) -> None:
    def busy_once(handler: BaseHTTPRequestHandler) -> bool:
        if len(upstream.heads) > 1:
            return False
        send(handler, 503, b"")
        return True

    upstream.behaviour = busy_once
    assert upstream.data_dir(tmp_path).path(source()).read_bytes() == CONTENT


def test_no_hub_is_unavailable_and_asked_once(upstream: Upstream, tmp_path: Path) -> None:
    dead = replace(upstream.data_dir(tmp_path), bases={**upstream.bases, "hf": "http://127.0.0.1:1"})
    for path in ("x.json", "y.json"):
        with pytest.raises(Unavailable, match="cannot be reached"):
            dead.path(source(path=path))
    assert upstream.heads == []


def test_without_the_library_one_message_says_what_to_install(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ModuleNotFoundError("No module named 'huggingface_hub'")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Unavailable, match=r'(?s)hf:o/d@r1:x\.json.*pip install "loom-core\[hub\]"'):
        upstream.data_dir(tmp_path).path(source())


def test_members_of_an_archive_of_the_hub(upstream: Upstream, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("a", "b"):
            archive.writestr(name, name * 10)
    whole = buffer.getvalue()
    upstream.files["/datasets/o/d/resolve/r1/z.zip"] = whole
    members = [
        replace(source(None, f"z.zip#{name}"), archive=source(whole, "z.zip"), git_blob=git_blob(name.encode() * 10))
        for name in ("a", "b")
    ]
    data = upstream.data_dir(tmp_path)
    assert [data.text(member) for member in members] == ["a" * 10, "b" * 10]
    assert upstream.asked == ["/datasets/o/d/resolve/r1/z.zip"]
    wrong = replace(members[0], archive=source(whole + b"!", "z.zip"))
    with pytest.raises(DataError, match=r"data file z\.zip"):
        replace(upstream.data_dir(tmp_path / "other", tmp_path / "mirror"), offline=True).path(
            replace(wrong, folder=put(tmp_path, "mirror/bench/z.zip", whole).parent.name)
        )


LAYOUTS = [
    "bench/x.json",
    "bench/d/x.json",
    "bench/o/d/x.json",
    "o/d/x.json",
    "d/x.json",
    "o--d/x.json",
    "d-r1/x.json",
    f"datasets--o--d/snapshots/{COMMIT}/x.json",
    f"bench/datasets--o--d/snapshots/{COMMIT}/x.json",
    "datasets--o--d/snapshots/r1/x.json",
    "x.json",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_snapshot_laid_into_the_mirror_as_it_came_is_found(tmp_path: Path, layout: str) -> None:
    file = put(tmp_path, f"mirror/{layout}", CONTENT)
    if "datasets--" in layout:
        put(tmp_path, f"mirror/{layout.partition('datasets--')[0]}datasets--o--d/refs/r1", COMMIT.encode())
    data = DataDir(mirror=tmp_path / "mirror", cache=tmp_path / "c", hub_cache=tmp_path / "h", offline=True)
    assert data.missing([source()]) == ()
    assert data.path(source()) == file
    assert [(row.sha256, row.origin) for row in data.used()] == [(sha256(CONTENT), "mirror")]


def test_what_snapshot_download_makes_is_a_mirror(upstream: Upstream, tmp_path: Path) -> None:
    """The library's own cache, as `hf download --cache-dir` leaves it, and its --local-dir."""
    from huggingface_hub import hf_hub_download

    common: dict[str, Any] = {"repo_type": "dataset", "revision": "r1", "endpoint": upstream.base}
    hf_hub_download("o/d", "x.json", cache_dir=tmp_path / "cached", **common)
    hf_hub_download("o/d", "x.json", local_dir=tmp_path / "local", **common)
    for mirror in ("cached", "local"):
        data = DataDir(mirror=tmp_path / mirror, cache=tmp_path / "c", hub_cache=tmp_path / "h", offline=True)
        assert data.path(source()).read_bytes() == CONTENT


def test_a_mirror_with_half_of_the_files_names_the_other_half(tmp_path: Path) -> None:
    put(tmp_path, "mirror/d/x.json", CONTENT)
    data = DataDir(mirror=tmp_path / "mirror", cache=tmp_path / "c", hub_cache=tmp_path / "h", offline=True)
    sources = [source(), source(path="y.json")]
    assert [missing.pin for missing in data.missing(sources)] == ["hf:o/d@r1:y.json"]
    with pytest.raises(Unavailable, match=r"(?s)missing data file y\.json.*bench \(mirror\).*offline"):
        data.path(sources[1])
