"""A local stand-in for GitHub and the hub, and pins of bytes at hand: what a test of a data loader needs.

Serves on 127.0.0.1 only. Knows the URL layout of `loom_core.pins`; knows no benchmark.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from loom_core.data import DataDir
from loom_core.download import Http
from loom_core.types import DataSource


class Upstream:
    """Files by URL path; every request is counted. `behaviour` may answer a request itself and return True."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        self.behaviour: Callable[[BaseHTTPRequestHandler], bool] = lambda handler: False

    def data_dir(self, cache: Path, mirror: Path | None = None) -> DataDir:
        """A DataDir that asks this stand-in and waits for nothing."""
        http = Http(seconds=5, attempts=2, pause_seconds=0, quiet=True)
        return DataDir(mirror=mirror, cache=cache, bases={"github": self.base, "hf": self.base}, http=http)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Serve one request."""
        self.asked.append(handler.path)
        self.tokens.append(handler.headers.get("Authorization"))
        if self.behaviour(handler):
            return
        data = self.files.get(handler.path)
        send(handler, 404 if data is None else 200, data or b"")


def send(handler: BaseHTTPRequestHandler, status: int, data: bytes, announced: int | None = None) -> None:
    """Answer with `data`; announced: the Content-Length to claim where it is not the true one."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data) if announced is None else announced))
    handler.end_headers()
    handler.wfile.write(data)


@contextmanager
def serving() -> Iterator[Upstream]:
    """A running stand-in. Set `no_proxy` to 127.0.0.1 where the environment names a proxy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

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
