"""Asks the hosts of pins what they have, without fetching a file: there, moved, gated, gone, changed, a stand-in.

Speaks HTTP itself, so that redirects are seen; knows the headers of both hosts. Writes nothing.
"""

from __future__ import annotations

import http.client
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from email.message import Message
from typing import Literal
from urllib.parse import urljoin, urlsplit

from loom_core.contract.types import DataSource
from loom_core.data.digests import LFS, POINTER_BYTES
from loom_core.data.download import RETRIED, Http, Unreachable
from loom_core.data.pins import Pin

State = Literal["there", "moved", "gated", "gone", "changed", "stand-in", "not asked"]
REDIRECTS = (301, 302, 303, 307, 308)
AT_ONCE = 8
SMALL = range(201)
"""Sizes at which a file may be a git-lfs pointer or a placeholder; real pointers have about 130 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a host says of a pin. detail: in words; "" where there is nothing to add."""

    pin: str
    state: State
    detail: str = ""


def whole_files(sources: Sequence[DataSource]) -> list[DataSource]:
    """The files to ask for: an archive in place of its members, once, with the digests pinned for it."""
    found: dict[str, DataSource] = {}
    for source in sources:
        pin = Pin.parse(source.pin)
        if pin.member is not None:
            text = replace(pin, member=None).text
            source = source.archive or replace(source, pin=text, sha256="", git_blob="", n_bytes=None)
        found.setdefault(source.pin, source)
    return list(found.values())


def ask(sources: Sequence[DataSource], bases: Mapping[str, str], http: Http) -> Iterator[Answer]:
    """The answers to `whole_files`, in order, several hosts' at once; a host that does not answer is asked no more."""
    asker = _Asker(bases=bases, http=http, token=_token())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(asker.ask, whole_files(sources))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    status: int
    headers: Message
    url: str
    moved_to: str = ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Leave redirects to the caller."""


@dataclass(frozen=True, kw_only=True)
class _Asker:
    bases: Mapping[str, str]
    http: Http
    token: str | None
    dead: dict[str, str] = field(default_factory=dict)
    opener: urllib.request.OpenerDirector = field(default_factory=lambda: urllib.request.build_opener(_NoRedirect))
    guard: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, source: DataSource) -> Answer:
        """One pin's answer."""
        pin = Pin.parse(source.pin)
        if (why := self.dead.get(pin.host)) is not None:
            return Answer(pin=source.pin, state="not asked", detail=why)
        try:
            reply = self._head(pin)
            return replace(self._judged(source, pin, reply), pin=source.pin)
        except Unreachable as error:
            with self.guard:
                self.dead.setdefault(pin.host, f"the host does not answer: {error}")
            return Answer(pin=source.pin, state="not asked", detail=self.dead[pin.host])

    def _head(self, pin: Pin) -> _Reply:
        """The answer to HEAD. Redirects within the host are followed; one that leaves it (a content network) is not."""
        url, moved_to = pin.url(self.bases), ""
        for _ in range(5):
            status, headers = self._once(url, pin.host, "HEAD")
            target = urljoin(url, headers.get("Location", "")) if status in REDIRECTS else ""
            if not target or urlsplit(target).netloc != urlsplit(url).netloc:
                return _Reply(status=status, headers=headers, url=url, moved_to=moved_to)
            if _repository(target, pin) != _repository(url, pin):
                moved_to = _repository(target, pin)
            url = target
        raise Unreachable(f"{url}: more redirects than 5")

    def _once(self, url: str, host: str, method: str) -> tuple[int, Message]:
        headers = {"User-Agent": "loom", "Accept-Encoding": "identity"}
        if host == "hf" and self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        for attempt in range(1, self.http.attempts + 1):
            try:
                request = urllib.request.Request(url, headers=headers, method=method)
                with self.opener.open(request, timeout=self.http.seconds) as answer:
                    return answer.status, answer.headers
            except urllib.error.HTTPError as error:
                error.close()
                if error.code not in RETRIED:
                    return error.code, error.headers
                if attempt == self.http.attempts:
                    raise Unreachable(f"{url}: HTTP {error.code}") from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == self.http.attempts:
                    raise Unreachable(
                        f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}"
                    ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _judged(self, source: DataSource, pin: Pin, reply: _Reply) -> Answer:
        code = reply.headers.get("X-Error-Code", "")
        if reply.status in (401, 403):
            login = "with the token given" if self.token else "without a token: set HF_TOKEN"
            return _answer("gated", f"HTTP {reply.status} {code}".rstrip() + f", {login}")
        if reply.status >= 400:
            return _answer("gone", f"HTTP {reply.status} {code}".rstrip())
        size = _size(reply)
        if size is None and reply.status in REDIRECTS:
            where = urlsplit(urljoin(reply.url, reply.headers.get("Location", ""))).netloc
            raise Unreachable(f"{reply.url}: sent to {where} (a login page of the network?)")
        etag = (reply.headers.get("X-Linked-Etag") or reply.headers.get("ETag") or "").removeprefix("W/").strip('"')
        if size is not None and size in SMALL and size != source.n_bytes and (what := self._stand_in(reply.url, size)):
            return _answer("stand-in", what)
        if source.n_bytes is not None and size is not None and size != source.n_bytes:
            return _answer("changed", f"{size:,} bytes, pinned {source.n_bytes:,}")
        # The hub's entity tag is the sha256 of a large file, and git's id of any other.
        pinned = {64: source.sha256, 40: source.git_blob}.get(len(etag), "") if pin.host == "hf" else ""
        if pinned and re.fullmatch("[0-9a-f]+", etag) and etag != pinned:
            return _answer("changed", f"digest {etag[:16]}…, pinned {pinned[:16]}…")
        if reply.moved_to:
            return _answer("moved", f"to {reply.moved_to}")
        return _answer("there", "size unknown" if size is None else f"{size:,} bytes")

    def _stand_in(self, url: str, size: int) -> str:
        """What a very small file is, read to be told; "" where it is not a stand-in."""
        if size <= 1:
            return f"a placeholder of {size} bytes"
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "loom"})
            with self.opener.open(request, timeout=self.http.seconds) as answer:
                return "a git-lfs pointer" if answer.read(POINTER_BYTES).startswith(LFS) else ""
        except (OSError, http.client.HTTPException):
            return ""


def _answer(state: State, detail: str) -> Answer:
    return Answer(pin="", state=state, detail=detail)


def _size(reply: _Reply) -> int | None:
    """Bytes of the file; the length of a redirect's own body is not it."""
    own = "" if reply.status in REDIRECTS else reply.headers.get("Content-Length", "")
    found = reply.headers.get("X-Linked-Size") or own
    return int(found) if found.isdigit() else None


def _repository(url: str, pin: Pin) -> str:
    """OWNER/NAME in an address of the host."""
    parts = urlsplit(url).path.strip("/").split("/")
    before = parts.index("datasets") + 1 if pin.host == "hf" and "datasets" in parts else 0
    return "/".join(parts[before : before + pin.repo.count("/") + 1])


def _token() -> str | None:
    """HF_TOKEN, or what `hf auth login` has kept, where huggingface_hub is installed."""
    if token := os.environ.get("HF_TOKEN"):
        return token
    try:
        from huggingface_hub import get_token
    except ImportError:
        return None
    return get_token()
