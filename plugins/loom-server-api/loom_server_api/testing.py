"""An endpoint for tests and measurements: it answers by rule on 127.0.0.1, and misbehaves on demand. Runs no model.

A token is a word. Faults are drawn for each attempt by their shares, or chosen by a function, so that one run can meet
all of them: `Endpoint(faults={"500": 0.1, "cut": 0.1})`. Uses asyncio alone, none of the code that it tests.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from loom_core.api import Json

FAULTS: tuple[str, ...] = (
    *("429", "429-after", "500", "503", "reset", "slow", "hang", "cut", "malformed", "empty", "error-in-200"),
    *("wrong-usage", "no-usage", "ignore-stop", "ignore-limit", "filter", "filter-400", "overflow", "quota", "key"),
)
"""What can go wrong with an attempt. The first line passes when asked again, but for `hang`, which needs a timeout."""

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
STATUS: dict[str, tuple[int, dict[str, str]]] = {
    "429": (429, {"message": "rate limit reached", "code": "rate_limit_exceeded"}),
    "429-after": (429, {"message": "rate limit reached", "code": "rate_limit_exceeded"}),
    "500": (500, {"message": "the server had an error"}),
    "503": (503, {"message": "overloaded"}),
    "quota": (429, {"message": "you exceeded your current quota", "code": "insufficient_quota"}),
    "overflow": (
        400,
        {"message": "this model's maximum context length is 8", "code": "context_length_exceeded"},
    ),
    "filter-400": (400, {"message": "the prompt was blocked by the content policy", "code": "content_filter"}),
}


@dataclass
class Seen:
    """An attempt as the endpoint saw it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Json]
    fault: str


def prompt_of(body: Mapping[str, Any]) -> str:
    """The prompt of a request's body, whichever route it came by; token ids as numbers with spaces."""
    if "messages" in body:
        return "".join(str(row["content"]) for row in body["messages"])
    prompt = body.get("prompt", "")
    return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))


def last_words(body: Mapping[str, Any]) -> str:
    """The default answer: the prompt's last three words."""
    return " ".join(prompt_of(body)[-100:].split()[-3:])


@dataclass
class Endpoint:
    """A context manager; `base_url` holds while it is open. keep: whether attempts are remembered in `seen`.

    seconds: how long each answer takes. retry_after: what "429-after" asks for. key: the only accepted key, if any.
    """

    answer: Callable[[dict[str, Any]], str] = last_words
    faults: Mapping[str, float] = field(default_factory=dict)
    choose: Callable[[dict[str, Any]], str] | None = None
    models: tuple[Mapping[str, Json], ...] = ({"id": "echo", "object": "model", "owned_by": "tests"},)
    key: str = ""
    seconds: float = 0.0
    slow_seconds: float = 0.2
    retry_after: str = "0.05"
    extra_delta: Mapping[str, Json] = field(default_factory=dict)
    seed: int = 0
    keep: bool = True
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        if unknown := set(self.faults) - set(FAULTS):
            raise ValueError(f"unknown faults {unknown}")
        self._random, self.at_once = random.Random(self.seed), 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def base_url(self) -> str:
        """The address up to /v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Endpoint:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._close)
        self._thread.join(10)

    async def _open(self) -> None:
        self._server = await self._loop.create_server(lambda: Connection(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    def _close(self) -> None:
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.call_soon(self._loop.stop)

    def fault(self, body: dict[str, Any]) -> str:
        """The fault of this attempt; "" where it is answered well."""
        if self.choose is not None:
            return self.choose(body)
        drawn = self._random.random()
        for name, share in self.faults.items():
            drawn -= share
            if drawn < 0:
                return name
        return ""


class Connection(asyncio.Protocol):
    """One connection of HTTP/1.1, kept alive."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint, self._data = endpoint, b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up an answer that nobody waits for."""
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Take bytes; answer each whole request."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            lines = self._data[:end].decode("latin-1").split("\r\n")
            headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            stop = end + 4 + int(headers.get("content-length", 0))
            if len(self._data) < stop:
                return
            content, self._data = self._data[end + 4 : stop], self._data[stop:]
            self._request(lines[0].split()[1], headers, content)

    def _request(self, path: str, headers: dict[str, str], content: bytes) -> None:
        endpoint = self._endpoint
        if endpoint.key and headers.get("authorization") != f"Bearer {endpoint.key}":
            said = headers.get("authorization", "no key")
            self._json(401, {"error": {"message": f"incorrect key: {said}", "code": "invalid_api_key"}})
        elif path == "/v1/models":
            self._json(200, {"object": "list", "data": list(endpoint.models)})
        elif path not in ("/v1/chat/completions", "/v1/completions"):
            self._json(404, {"detail": "Not Found"})
        else:
            body = json.loads(content)
            fault = endpoint.fault(body)
            if endpoint.keep:
                endpoint.seen.append(Seen(path, headers, body, fault))
            endpoint.at_once += 1
            endpoint.most_at_once = max(endpoint.most_at_once, endpoint.at_once)
            if not fault and not endpoint.seconds:
                self._end(body, fault)
            else:
                self._task = asyncio.get_running_loop().create_task(self._later(body, fault))

    async def _later(self, body: dict[str, Any], fault: str) -> None:
        try:
            await asyncio.sleep(3600 if fault == "hang" else self._endpoint.seconds)
            if fault == "slow":
                await asyncio.sleep(self._endpoint.slow_seconds)
        except asyncio.CancelledError:
            self._endpoint.at_once -= 1
            raise
        self._end(body, fault)

    def _end(self, body: dict[str, Any], fault: str) -> None:
        self._endpoint.at_once -= 1
        if fault in STATUS:
            status, error = STATUS[fault]
            more = f"Retry-After: {self._endpoint.retry_after}\r\n" if fault == "429-after" else ""
            self._json(status, {"error": error}, more)
        elif fault == "key":
            self._json(401, {"error": {"message": "incorrect key"}})
        elif fault == "reset":
            self._transport.abort()
        elif body.get("stream"):
            self._stream(body, fault)
        else:
            self._whole(body, fault)

    def _whole(self, body: dict[str, Any], fault: str) -> None:
        text, reason, usage = self._said(body, fault)
        chat = "messages" in body
        part: Json = {"message": {"role": "assistant", "content": text, **self._endpoint.extra_delta}}
        choice = {"index": 0, "finish_reason": reason, **(part if chat else {"text": text})}
        value: Json = {"id": "1", "object": "chat.completion" if chat else "text_completion", "choices": [choice]}
        if fault == "empty":
            value["choices"] = []
        if usage is not None:
            value["usage"] = usage
        if fault == "error-in-200":
            value = {"error": {"message": "the provider failed", "code": 502}}
        data = json.dumps(value).encode()
        if fault == "malformed":
            data = data[: len(data) // 2]
        self._send(200, "application/json", data, cut=fault == "cut")

    def _stream(self, body: dict[str, Any], fault: str) -> None:
        text, reason, usage = self._said(body, fault)
        events = list(self._events(body, text, reason))
        if fault == "empty":
            events = []
        if usage is not None and body.get("stream_options", {}).get("include_usage"):
            events.append({"choices": [], "usage": usage})
        if fault == "error-in-200":
            events = [*events[:1], {"error": {"message": "the provider failed", "code": 502}}]
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        if fault == "malformed":
            lines[0] = lines[0][: len(lines[0]) // 2] + "\n\n"
        if fault == "cut":
            lines = lines[:1]
        else:
            lines.append("data: [DONE]\n\n")
        self._send(200, "text/event-stream", "".join(lines).encode(), chunked=True, cut=fault == "cut")

    def _events(self, body: dict[str, Any], text: str, reason: str) -> Iterator[Json]:
        middle = len(text) // 2
        for piece in [text[:middle], text[middle:]] if text else []:
            part: Json = {"delta": {"content": piece}} if "messages" in body else {"text": piece}
            yield {"choices": [{"index": 0, **part, "finish_reason": None}]}
        last: Json = {"delta": dict(self._endpoint.extra_delta)} if "messages" in body else {"text": ""}
        yield {"choices": [{"index": 0, **last, "finish_reason": reason}]}

    def _said(self, body: dict[str, Any], fault: str) -> tuple[str, str, Json]:
        """The answer with its end and its counts, limits held unless the fault says otherwise."""
        words = self._endpoint.answer(body).split(" ")
        limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        reason = "content_filter" if fault == "filter" else "stop"
        if fault == "ignore-limit":
            words += ["more"] * (limit + 5)
        elif len(words) > limit:
            words, reason = words[:limit], "length"
        text = " ".join(words)
        found = [text.find(stop) for stop in body.get("stop") or () if stop in text]
        if found and fault != "ignore-stop":
            text, reason = text[: min(found)], "stop"
        n_in = max(1, len(prompt_of(body).split()))
        usage: Json = {"prompt_tokens": n_in, "completion_tokens": len(words), "total_tokens": n_in + len(words)}
        if fault == "wrong-usage":
            usage = {"prompt_tokens": -1, "completion_tokens": 10**9, "total_tokens": 0}
        return text, reason, None if fault == "no-usage" else usage

    def _json(self, status: int, value: Json, more: str = "") -> None:
        self._send(status, "application/json", json.dumps(value).encode(), more=more)

    def _send(
        self, status: int, kind: str, data: bytes, *, more: str = "", chunked: bool = False, cut: bool = False
    ) -> None:
        length = "transfer-encoding: chunked" if chunked else f"content-length: {len(data)}"
        head = f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}\r\ncontent-type: {kind}\r\n{length}\r\n{more}\r\n"
        sent = data[: len(data) // 2] if cut and not chunked else data
        if chunked:
            sent = f"{len(sent):x}\r\n".encode() + sent + (b"\r\n" if cut else b"\r\n0\r\n\r\n")
        self._transport.write(head.encode() + sent)
        if cut:
            self._transport.close()
