"""A local stand-in for GitHub and the hub, and pins of bytes at hand: what a test of a data loader needs.

Serves on 127.0.0.1 only. Knows the URL layout of `loom_core.data.pins`; knows no benchmark.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from loom_core.contract.types import DataSource
from loom_core.data.access import DataDir
from loom_core.data.download import Http

COMMIT = "c0ffee" * 6 + "c0de"
"""What the stand-in says each revision on the hub is."""


class Upstream:
    """Files by URL path. `behaviour` may answer a request itself and return True.

    asked, heads: the paths of each GET and HEAD. tokens: the `Authorization` of each GET.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.tokens: list[str | None] = []
        self.behaviour: Callable[[BaseHTTPRequestHandler], bool] = lambda handler: False

    @property
    def bases(self) -> dict[str, str]:
        """This stand-in as both hosts (`DataDir.bases`)."""
        return {"github": self.base, "hf": self.base}

    def data_dir(self, cache: Path, mirror: Path | None = None) -> DataDir:
        """A DataDir that asks this stand-in and waits for nothing."""
        http = Http(seconds=5, attempts=2, pause_seconds=0, quiet=True)
        return DataDir(mirror=mirror, cache=cache, bases=self.bases, http=http, hub_cache=cache / "hub")

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Serve one request."""
        if handler.command == "HEAD":
            self.heads.append(handler.path)
        else:
            self.asked.append(handler.path)
            self.tokens.append(handler.headers.get("Authorization"))
        if self.behaviour(handler):
            return
        data = self.files.get(handler.path)
        send(handler, 404 if data is None else 200, data or b"")


def send(
    handler: BaseHTTPRequestHandler,
    status: int,
    data: bytes,
    announced: int | None = None,
    headers: Mapping[str, str] = {},
) -> None:
    """Answer with `data`, with the headers of the hub where it is asked for a file.

    announced: the Content-Length to claim where it is not the true one. headers: further ones.
    """
    hub = {"ETag": f'"{git_blob(data)}"', "X-Repo-Commit": COMMIT} if handler.path.startswith("/datasets/") else {}
    handler.send_response(status)
    for name, value in {**hub, **headers}.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data) if announced is None else announced))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data)


@contextmanager
def serving() -> Iterator[Upstream]:
    """A running stand-in. Set `no_proxy` to 127.0.0.1 where the environment names a proxy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Upstream(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sha256(data: bytes) -> str:
    """sha256 (hex) of bytes."""
    return hashlib.sha256(data).hexdigest()


def git_blob(data: bytes) -> str:
    """git's id (hex) of a content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def pinned(path: str, data: bytes | None, *, origin: str = "github:owner/repo@abc123") -> DataSource:
    """A pin of these bytes in the mirror folder `bench`; without bytes, a pin whose digest and size are not known."""
    if data is None:
        return DataSource(pin=f"{origin}:{path}", folder="bench")
    return DataSource(pin=f"{origin}:{path}", folder="bench", sha256=sha256(data), n_bytes=len(data))


def put(folder: Path, path: str, data: bytes) -> Path:
    """Write a file below `folder`, making its folders."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file
