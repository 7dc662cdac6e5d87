"""One file over HTTP into a local file: proxies, time limits, retries, progress, sizes. Knows no pin."""

from __future__ import annotations

import hashlib
import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from loom_core.contract.errors import DataError

CHUNK_BYTES = 1 << 18
RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
MOST_BYTES = 16 << 30
"""The longest file taken where no pin says how long it is; the largest archive of a known benchmark has 11 GB."""


class Unreachable(Exception):
    """No answer from the host: no network, no name, no route, a refused or timed-out connection."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What arrived."""

    sha256: str
    n_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """How to ask: seconds to wait for an answer, attempts, pause between them. Proxies come from the environment."""

    seconds: float = 20.0
    attempts: int = 3
    pause_seconds: float = 1.0
    quiet: bool = False

    def fetch(self, url: str, target: Path, *, n_bytes: int | None = None) -> Fetched:
        """Download `url` into `target` (overwritten).

        n_bytes: the size it must have, where known; without it, MOST_BYTES is the end. Raises Unreachable when the
        host cannot be reached, DataError for every other failure.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                return self._once(url, target, n_bytes)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code not in RETRIED or attempt == self.attempts:
                    raise _refused(url, error.code, error.reason) from None
            except urllib.error.URLError as error:
                raise Unreachable(f"{url}: {error.reason}") from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == self.attempts:
                    why = str(error) or type(error).__name__
                    raise DataError(
                        "a download was interrupted",
                        where=url,
                        why=f"{why} ({attempt} attempts)",
                        hint="run the same command again",
                    ) from error
            time.sleep(self.pause_seconds * attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _once(self, url: str, target: Path, n_bytes: int | None) -> Fetched:
        request = urllib.request.Request(url, headers={"User-Agent": "loom", "Accept-Encoding": "identity"})
        with urllib.request.urlopen(request, timeout=self.seconds) as answer:
            length = answer.headers.get("Content-Length", "")
            offered = int(length) if length.isdigit() else None
            limit = MOST_BYTES if n_bytes is None else n_bytes
            if offered is not None and (offered > limit or n_bytes not in (None, offered)):
                raise size_refused(url, n_bytes, offered)
            total = n_bytes if n_bytes is not None else offered
            with target.open("wb") as file, progress(url, total, self.quiet) as step:
                got = _copy(answer, file, step, limit=limit)
        if got.n_bytes > limit:
            raise size_refused(url, n_bytes, got.n_bytes)
        if offered is not None and got.n_bytes < offered:
            raise ConnectionError(f"{got.n_bytes} of {offered} bytes arrived")
        return got


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, step: Callable[[int], None], limit: int) -> Fetched:
    digest, n_bytes = hashlib.sha256(), 0
    # One chunk beyond the limit is enough to know that a file is too long.
    while chunk := answer.read(CHUNK_BYTES):
        file.write(chunk)
        digest.update(chunk)
        n_bytes += len(chunk)
        step(len(chunk))
        if n_bytes > limit:
            break
    return Fetched(digest.hexdigest(), n_bytes)


def size_refused(url: str, n_bytes: int | None, offered: int) -> DataError:
    """The error for a file of another size than its pin's, or a longer one than any that is taken without a pin."""
    if n_bytes is None:
        why = f"at least {offered:,} bytes; without a pinned size, at most {MOST_BYTES:,} are taken"
        return DataError("the upstream file is too long", where=url, why=why, hint="pin its size in the plugin")
    return DataError(
        "the upstream file's size differs from its pin",
        where=url,
        why=f"pinned {n_bytes} bytes, offered {offered}",
        hint="the plugin that pins it needs an update; nothing was stored",
    )


def _refused(url: str, code: int, reason: str) -> DataError:
    gone = "the pinned file is gone upstream: update the plugin, or give a mirror with --data-dir"
    return DataError(
        "the upstream server refused a file",
        where=url,
        why=f"HTTP {code} {reason}",
        hint=gone if code == 404 else "try again later, or give a mirror with --data-dir",
    )


@contextmanager
def progress(label: str, total: int | None, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A function to call with the bytes that arrived; a progress bar on a terminal, silent elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label.rsplit("/", 1)[-1], total=total)
        yield lambda n: bars.advance(task, n)
