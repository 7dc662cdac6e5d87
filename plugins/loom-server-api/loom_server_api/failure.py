"""Why a call failed, in one short line without secrets, and whether asking again may help. Knows HTTP."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

from loom_core.api import Json
from loom_server_api.reply import Broken, Refused

PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529))
"""HTTP codes after which the same call may succeed; 520 to 524 and 529 are those of large proxies and vendors."""

OVERFLOW = re.compile(
    r"context[_ ](length|window|size)|maximum context|max_model_len|longer than the model|too many tokens"
    r"|exceed\w* .{0,40}(context|tokens)|input.{0,20}too long|prompt is too long|must be <= \d+.*max_new_tokens",
    re.IGNORECASE,
)
FILTER = re.compile(r"content[_ ]?(filter|policy|management)|responsibleai|moderation", re.IGNORECASE)
QUOTA = frozenset(("insufficient_quota", "billing_hard_limit_reached"))
LONGEST_REASON = 300
SHORTEST_SECRET = 6


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt. wait: seconds that the server asks for; None where it does not say."""

    reason: str
    passing: bool
    wait: float | None = None


class StatusError(Exception):
    """An HTTP status other than 200, with what came with it."""

    def __init__(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(f"HTTP {status}")
        self.status, self.content, self.headers = status, content, headers


class Redactor:
    """Takes the key out of texts; keys of a few letters are placeholders such as "none" and stay."""

    def __init__(self, key: str) -> None:
        self._key = key if len(key) >= SHORTEST_SECRET else ""

    def __call__(self, text: str) -> str:
        """The text on one line, shortened, without the key."""
        if self._key:
            text = text.replace(self._key, "[redacted]")
        text = " ".join(text.split())
        return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"


def failure_of(error: Exception, seconds: float) -> Failure:
    """An exception of an attempt as a failure. seconds: the limit that a timeout ran into."""
    if isinstance(error, Refused):
        return Failure(str(error), passing=False)
    if isinstance(error, Broken):
        return Failure(str(error), passing=True)
    if isinstance(error, StatusError):
        return _status(error)
    if isinstance(error, TimeoutError):
        return Failure(f"timeout: no answer within {seconds:g} s", passing=True)
    if isinstance(error, (httpx2.TransportError, OSError)):
        return Failure(_connection(error), passing=True)
    return Failure(f"{type(error).__name__}: {error}", passing=False)


def _connection(error: Exception) -> str:
    """What broke the connection: the first cause that says something (the transport calls a reset a timeout)."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    if any(isinstance(cause, (httpx2.ReadError, httpx2.RemoteProtocolError)) for cause in causes):
        return f"cut reply: the connection ended before the answer did ({type(causes[-1]).__name__})"
    texts = [f"{type(e).__name__}: {e}" for e in reversed(causes) if str(e).strip()]
    return f"connection failed: {texts[0] if texts else type(causes[-1]).__name__}"


def _status(error: StatusError) -> Failure:
    status, body = error.status, parsed(error.content)
    message, code = message_of(body), code_of(body)
    text = f"HTTP {status}" + (f": {message}" if message else "")
    if status in (400, 403, 413, 422, 500) and FILTER.search(f"{code} {message}"):
        return Failure(f"content filter ({text})", passing=False)
    if status in (400, 413, 422, 500) and OVERFLOW.search(f"{code} {message}"):
        return Failure(f"context overflow reported by the server ({text})", passing=False)
    if status in (401, 403):
        return Failure(f"the key was refused ({text})", passing=False)
    if set(code.split()) & QUOTA:
        return Failure(f"the quota is used up ({text})", passing=False)
    return Failure(text, passing=status in PASSING, wait=retry_after(error.headers))


def parsed(content: bytes) -> Json:
    """An error body: JSON where it is, else its text."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")


def code_of(body: Json) -> str:
    """The machine-readable code and type of an error body, as words."""
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    return " ".join(str(inner[k]) for k in ("code", "type") if inner.get(k)) if isinstance(inner, Mapping) else ""


def message_of(body: Json) -> str:
    """The words of an error body, whatever its shape."""
    if isinstance(body, Mapping):
        for name in ("message", "detail", "error"):
            if body.get(name):
                return message_of(body[name])
        return str(dict(body)) if body else ""
    return body if isinstance(body, str) else "" if body is None else str(body)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds asked for by Retry-After (a number or a date) or retry-after-ms; None where neither is there."""
    if (text := headers.get("retry-after-ms")) is not None:
        try:
            return max(0.0, float(text) / 1000)
        except ValueError:
            pass
    if (text := headers.get("retry-after")) is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
