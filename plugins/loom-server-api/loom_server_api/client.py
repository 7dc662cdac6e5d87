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
from dataclasses import dataclass

import httpx2
import openai

from loom_server_api.body import ROUTES, Call
from loom_server_api.failure import Failure, Redactor, StatusError, failure_of
from loom_server_api.plugin import ApiOptions
from loom_server_api.reply import Reply, Stream, whole

NO_KEY = "none"
"""Sent where no key is set: the client wants one, local engines do not read it."""
LONGEST_BACKOFF_SECONDS = 60.0


def key_of(options: ApiOptions) -> str:
    """The key from the environment, or a placeholder."""
    return os.environ.get(options.key_env, "").strip() or NO_KEY


def sync_client(options: ApiOptions, seconds: float) -> openai.OpenAI:
    """A client for the few calls before a run."""
    return openai.OpenAI(base_url=options.base_url, api_key=key_of(options), max_retries=2, timeout=seconds)


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
        request = httpx2.Request("POST", self._urls[call.route], headers=self._headers, content=content)
        response = await self._http.send(request, stream=True)
        try:
            if response.status_code != 200:
                raise StatusError(response.status_code, await response.aread(), response.headers)
            if "text/event-stream" not in response.headers.get("content-type", ""):
                return whole(await response.aread()), None
            stream, first = Stream(), None
            async for line in response.aiter_lines():
                if stream.line(line) and first is None:
                    first = time.perf_counter()
            return stream.end(), first
        finally:
            await response.aclose()

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
