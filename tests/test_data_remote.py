"""`loom data verify --remote` against a local stand-in for the hosts: states, exit codes, no body fetched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from loom_kit.upstream import Upstream, git_blob, pinned, send, serving

import loom_core.cli.data as command
from loom_core.api import DataSource
from loom_core.data.download import Http
from loom_core.data.remote import Answer, ask

CONTENT = b"first line and a second\n" * 20
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
HUB, GITHUB = "/datasets/o/d/resolve/r1/f", "/o/d/r1/f"
HTTP = Http(seconds=1, attempts=2, pause_seconds=0, quiet=True)


def source(host: str, data: bytes | None = CONTENT, path: str = "f") -> DataSource:
    return pinned(path, data, origin=f"{host}:o/d@r1")


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Upstream]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "LOOM_OFFLINE", "LOOM_DATA"):
        monkeypatch.delenv(name, raising=False)
    with serving() as running:
        running.files = {HUB: CONTENT, GITHUB: CONTENT}
        monkeypatch.setenv("HF_ENDPOINT", running.base)
        monkeypatch.setenv("LOOM_GITHUB", running.base)
        yield running


def asked(upstream: Upstream, *sources: DataSource) -> list[Answer]:
    return list(ask(sources, upstream.bases, HTTP))


def answering(upstream: Upstream, status: int, data: bytes = b"", **headers: str) -> None:
    """Let the stand-in answer everything so. Headers are named with _ in place of -."""

    def behaviour(handler: BaseHTTPRequestHandler) -> bool:
        send(handler, status, data, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return True

    upstream.behaviour = behaviour


@pytest.mark.parametrize("host", ["github", "hf"])
def test_what_is_there_is_asked_for_once_and_never_fetched(upstream: Upstream, host: str) -> None:
    (answer,) = asked(upstream, source(host), source(host))
    assert (answer.state, answer.detail) == ("there", f"{len(CONTENT)} bytes")
    assert upstream.asked == [] and len(upstream.heads) == 1


@pytest.mark.parametrize(
    ("host", "status", "data", "headers", "state", "words"),
    [
        ("github", 404, b"", {}, "gone", "HTTP 404"),
        ("hf", 404, b"", {"X_Error_Code": "EntryNotFound"}, "gone", "HTTP 404 EntryNotFound"),
        ("hf", 401, b"", {"X_Error_Code": "GatedRepo"}, "gated", "HTTP 401 GatedRepo, without a token: set HF_TOKEN"),
        ("hf", 403, b"", {}, "gated", "set HF_TOKEN"),
        ("github", 200, CONTENT + b"!", {}, "changed", "481 bytes, pinned 480"),
        ("hf", 200, CONTENT.upper(), {}, "there", "480 bytes"),
        ("hf", 302, b"", {"Location": "https://cdn.example/x", "X_Linked_Size": "480"}, "there", "480 bytes"),
        ("hf", 302, b"", {"Location": "https://cdn.example/x", "X_Linked_Size": "9"}, "changed", "9 bytes"),
        (
            *("hf", 302, b"", {"Location": "https://cdn.example/x", "X_Linked_Size": "480", "X_Linked_Etag": "0" * 64}),
            *("changed", "digest 0000000000000000…"),
        ),
        ("github", 200, POINTER, {}, "stand-in", "a git-lfs pointer"),
        ("hf", 200, POINTER, {}, "stand-in", "a git-lfs pointer"),
        ("github", 200, b"\n", {}, "stand-in", "a placeholder of 1 bytes"),
        ("github", 302, b"", {"Location": "https://login.example/"}, "not asked", "login.example"),
        ("github", 503, b"", {}, "not asked", "HTTP 503"),
    ],
)
def test_states(
    upstream: Upstream, host: str, status: int, data: bytes, headers: dict[str, str], state: str, words: str
) -> None:
    answering(upstream, status, data, **headers)
    (answer,) = asked(upstream, source(host))
    assert answer.state == state and words in answer.detail, answer
    assert answer.pin == source(host).pin


def test_gits_id_of_a_small_file_of_the_hub_is_compared(upstream: Upstream) -> None:
    known = replace(source("hf", None), git_blob=git_blob(CONTENT))
    assert asked(upstream, known)[0].state == "there"
    upstream.files[HUB] = CONTENT.upper()
    assert asked(upstream, known)[0].state == "changed"


def test_a_renamed_set_is_followed_with_its_token_and_named(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    tokens: list[str | None] = []

    def renamed(handler: BaseHTTPRequestHandler) -> bool:
        tokens.append(handler.headers.get("Authorization"))
        if handler.path != HUB:
            return False
        send(handler, 307, b"", headers={"Location": HUB.replace("/o/", "/new/")})
        return True

    upstream.behaviour = renamed
    upstream.files[HUB.replace("/o/", "/new/")] = CONTENT
    (answer,) = asked(upstream, source("hf"))
    assert (answer.state, answer.detail) == ("moved", "to new/d")
    assert tokens == ["Bearer hf_planted"] * 2


def test_the_token_goes_to_the_hub_only(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    tokens: list[str | None] = []

    def away(handler: BaseHTTPRequestHandler) -> bool:
        tokens.append(handler.headers.get("Authorization"))
        return False

    upstream.behaviour = away
    asked(upstream, source("github"))
    assert tokens == [None]


def test_a_slow_host_is_given_up_after_its_seconds(upstream: Upstream) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> bool:
        time.sleep(0.5)
        return False

    upstream.behaviour = slow
    answers = list(ask([source("hf", path=f"f{i}") for i in range(30)], upstream.bases, replace(HTTP, seconds=0.05)))
    assert {answer.state for answer in answers} == {"not asked"}
    assert len(upstream.heads) <= 16  # those that were under way; the others are not asked


def test_members_ask_for_their_archive_once(upstream: Upstream) -> None:
    members = [replace(source("github", None, f"f#{name}"), archive=source("github")) for name in "ab"]
    assert [(answer.pin, answer.state) for answer in asked(upstream, *members)] == [("github:o/d@r1:f", "there")]


def run(monkeypatch: pytest.MonkeyPatch, sources: list[DataSource], *more: Any) -> Result:
    monkeypatch.setattr(command, "sources_of", lambda bench: tuple(sources))
    return CliRunner().invoke(command.data, ["verify", "books", "--remote", *more])


def test_exit_codes_and_what_is_printed(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [source("github"), source("hf")]
    done = run(monkeypatch, both)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == "2 files: 2 there"
    del upstream.files[GITHUB]
    done = run(monkeypatch, both)
    assert done.exit_code == 1
    assert "gone      github:o/d@r1:f  (HTTP 404)" in done.output and "1 there" in done.output
    upstream.files[GITHUB] = CONTENT
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    done = run(monkeypatch, both)
    assert done.exit_code == 3 and "does not answer" in done.output


def test_remote_and_offline_contradict_each_other(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "uses the network" in str(run(monkeypatch, [], "--offline").exception)
    monkeypatch.setenv("LOOM_OFFLINE", "1")
    assert "LOOM_OFFLINE" in str(run(monkeypatch, []).exception)
