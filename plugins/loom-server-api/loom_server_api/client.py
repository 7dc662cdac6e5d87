"""The openai client as loom uses it: its key, its headers and its HTTP client, over its aiohttp transport.

Bodies are written and read by loom: the client's own request and response objects cost more time than the whole call
does (perf/api.py). Retries are loom's too: they wait as long as the endpoint asks, up to a limit, and a failure for
good comes back as a reason instead of an exception.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import openai

from loom_core.api import ModelError
from loom_server_api.body import ROUTES, Call
from loom_server_api.failure import Failure, Redactor, StatusError, failure_of
from loom_server_api.plugin import ApiOptions
from loom_server_api.reply import Refused, Reply, Stream, whole

NO_KEY = "none"
"""Sent where no key is set: the client wants one, local engines do not read it."""
LONGEST_BACKOFF_SECONDS = 60.0
MOST_BYTES = 4 * 1024**2
MOST_BYTES_PER_TOKEN = 4096
"""A reply has at most so many bytes, and so many more for each token asked for: events of a stream wrap each."""
MOST_REDIRECTS = 3


def key_of(options: ApiOptions) -> str:
    """The key from the environment, or a placeholder. Raises ModelError for one that no header can hold; it is not
    repeated there."""
    key = os.environ.get(options.key_env, "").strip() or NO_KEY
    if not (key.isascii() and key.isprintable()):
        raise ModelError(
            "the key cannot be sent",
            where=f"environment variable {options.key_env}",
            why="it holds a line break, or a character that is not printable ASCII",
            hint=f"export {options.key_env} again, without line breaks",
        )
    return key


def sync_client(options: ApiOptions, seconds: float) -> openai.OpenAI:
    """A client for the few calls before a run; it asks this host and no other, and takes no large reply."""
    host = httpx2.URL(options.base_url).host

    def asks(request: httpx2.Request) -> None:
        if request.url.host != host:
            raise Refused(f"it redirects to another host, {request.url.host}")

    def told(response: httpx2.Response) -> None:
        packed = response.headers.get("content-encoding", "identity") != "identity"
        if packed or int(response.headers.get("content-length") or 0) > MOST_BYTES:
            raise Refused("its reply is packed, which it was not asked for" if packed else "its reply is too large")

    http = openai.DefaultHttpxClient(event_hooks={"request": [asks], "response": [told]})
    return openai.OpenAI(
        base_url=options.base_url,
        api_key=key_of(options),
        max_retries=2,
        timeout=seconds,
        http_client=http,
        default_headers={"accept-encoding": "identity"},
    )


@dataclass(slots=True)
class Outcome:
    """How a call ended. Exactly one of reply and error is set. started: of the last attempt."""

    reply: Reply | None
    error: str
    started: float
    first_token: float | None
    ended: float
    failures: tuple[str, ...] = ()


class Caller:
    """Asks one endpoint, from within an event loop. Must be closed."""

    def __init__(self, options: ApiOptions) -> None:
        self._options, self.redact = options, Redactor(key_of(options))
        most = options.concurrency + 8
        limits = httpx2.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=30.0)
        self._http = openai.DefaultAioHttpClient(limits=limits, timeout=None)
        self._client = openai.AsyncOpenAI(
            base_url=options.base_url, api_key=key_of(options), max_retries=0, http_client=self._http
        )
        self._urls = {name: httpx2.URL(options.base_url.rstrip("/") + path) for name, path in ROUTES.items()}
        self._headers = {
            **self._client.auth_headers,
            "content-type": "application/json",
            "accept": "text/event-stream" if options.stream else "application/json",
            "accept-encoding": "identity",
            "user-agent": f"loom-server-api openai/{openai.__version__}",
        }
        self._random = random.Random()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def ask(self, call: Call) -> Outcome:
        """The outcome of a call after as many attempts as it takes or the options allow; never raises for a failure."""
        failures: list[str] = []
        while True:
            started = time.perf_counter()
            try:
                async with asyncio.timeout(self._options.timeout):
                    reply, first = await self._attempt(call)
                return Outcome(reply, "", started, first, time.perf_counter(), tuple(failures))
            except Exception as error:  # noqa: BLE001 - whatever goes wrong with one request is that request's record
                failure = failure_of(error, self._options.timeout)
            failures.append(self.redact(failure.reason))
            wait = self._wait(failure, len(failures))
            if wait is None:
                error_text = self.redact(self._for_good(failure, failures))
                return Outcome(None, error_text, started, None, time.perf_counter(), tuple(failures[:-1]))
            await asyncio.sleep(wait)

    async def _attempt(self, call: Call) -> tuple[Reply, float | None]:
        """One attempt: the reply, and when its first text came. Raises what `failure_of` understands."""
        content = json.dumps(call.body, separators=(",", ":")).encode()
        response = await self._sent(self._urls[call.route], content)
        limit = call.body.get(self._options.limit_field)
        most = MOST_BYTES + MOST_BYTES_PER_TOKEN * (limit if isinstance(limit, int) else 0)
        try:
            if response.status_code != 200:
                raise StatusError(response.status_code, await _read(response, MOST_BYTES), response.headers)
            if "text/event-stream" not in response.headers.get("content-type", ""):
                return whole(await _read(response, most)), None
            stream, first = Stream(), None
            async for line in _lines(response, most):
                if stream.line(line) and first is None:
                    first = time.perf_counter()
            return stream.end(), first
        finally:
            await response.aclose()

    async def _sent(self, url: httpx2.URL, content: bytes) -> httpx2.Response:
        """The response to a body. A redirect that keeps the body is followed on the same host; any other is refused: it
        would hand the prompt to somebody else, or ask without it."""
        for _ in range(MOST_REDIRECTS):
            request = httpx2.Request("POST", url, headers=self._headers, content=content)
            response = await self._http.send(request, stream=True, follow_redirects=False)
            if not 300 <= response.status_code < 400:
                return response
            await response.aclose()
            there = url.join(response.headers.get("location", ""))
            if response.status_code not in (307, 308) or there.host != url.host:
                raise Refused(
                    f"the endpoint redirects (HTTP {response.status_code}) to {there}: set base_url to where it is"
                )
            url = there
        raise Refused(f"the endpoint redirects more than {MOST_REDIRECTS} times")

    def _wait(self, failure: Failure, attempts: int) -> float | None:
        """Seconds until the next attempt; None where there is to be none."""
        if not failure.passing or attempts > self._options.retries:
            return None
        if failure.wait is not None and failure.wait > self._options.patience:
            return None
        backoff = min(self._options.backoff * 2.0 ** min(attempts - 1, 30), LONGEST_BACKOFF_SECONDS)
        spread = self._random.uniform(0.5, 1.0)
        if failure.wait is None:
            return backoff * spread
        # Whoever was told the same time should not come back at the same moment.
        return failure.wait + self._random.uniform(0.0, min(1.0, 0.1 * failure.wait + 0.05))

    def _for_good(self, failure: Failure, failures: list[str]) -> str:
        if failure.passing and failure.wait is not None and failure.wait > self._options.patience:
            return f"{failure.reason}; it asks to wait {failure.wait:g} s, patience is {self._options.patience:g} s"
        return failure.reason + (f" (after {len(failures)} attempts)" if failure.passing and len(failures) > 1 else "")


async def _pieces(response: httpx2.Response, most: int) -> AsyncIterator[bytes]:
    """The content as it comes, unpacked; raises Refused beyond `most` bytes."""
    n = 0
    async for piece in response.aiter_bytes():
        n += len(piece)
        if n > most:
            raise Refused(f"the reply is larger than any answer to this request: more than {most} bytes")
        yield piece


async def _read(response: httpx2.Response, most: int) -> bytes:
    return b"".join([piece async for piece in _pieces(response, most)])


async def _lines(response: httpx2.Response, most: int) -> AsyncIterator[str]:
    """The lines of a stream of at most `most` bytes."""
    begun: list[bytes] = []
    async for piece in _pieces(response, most):
        first, *others = piece.split(b"\n")
        begun.append(first)
        for line in others:
            yield b"".join(begun).rstrip(b"\r").decode("utf-8", "replace")
            begun = [line]
    if rest := b"".join(begun):
        yield rest.decode("utf-8", "replace")
