"""What an endpoint sent back, as one `Reply`: a JSON body or a stream of server-sent events. Knows shapes, no request.

Two failures are told apart: `Broken` may pass when asked again (a torn stream, malformed JSON, no choices); `Refused`
will not (a content filter).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loom_core.api import Json

DONE = "[DONE]"
START = 200
MARKUP = re.compile(r"\ufeff?\s*<(!doctype|html|head|body|\?xml|!--)", re.IGNORECASE)
HTML = "a web page (HTML) instead of JSON: a login page, a proxy, or the wrong path in base_url"


class Broken(Exception):
    """A reply that is none; asking again may help."""


class Refused(Exception):
    """A reply that says no; asking again will not help."""


@dataclass(slots=True)
class Reply:
    """An answer as the endpoint gave it. usage: its own counts, unchecked. finished: an end was reported.

    refused: its words, or some of them, came in the field that says that the model refused. surplus: there was text
    behind its end, or of further answers; it is left out.
    """

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    finished: bool = False
    usage: Mapping[str, Json] | None = None
    token_ids: list[int] = field(default_factory=list)
    streamed: bool = False
    refused: bool = False
    surplus: bool = False

    def check(self) -> None:
        """Raise for a finish reason that makes this no answer."""
        if self.finish_reason == "content_filter":
            raise Refused("content filter: the endpoint withheld the answer")
        if self.finish_reason == "error":
            raise Broken("the endpoint ended the answer with an error")


def whole(data: bytes) -> Reply:
    """The reply in a JSON body. Raises Broken or Refused."""
    value = _object(data)
    raise_error(value)
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Broken("empty choices: the endpoint's reply holds no answer")
    reply = Reply(usage=_usage(value))
    _take_all(reply, choices, "message")
    reply.finished = True
    reply.check()
    return reply


class Stream:
    """Puts a reply together from the lines of a stream."""

    def __init__(self) -> None:
        self.reply = Reply(streamed=True)
        self._choices, self._done = 0, False

    def line(self, line: str) -> bool:
        """Take one line; True if it brought text."""
        if not line.startswith("data:") or self._done:
            return False
        data = line[5:].strip()
        if data == DONE:
            self._done = True
            return False
        value = _object(data)
        raise_error(value)
        if (usage := _usage(value)) is not None:
            self.reply.usage = usage
        choices = value.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return False
        self._choices += 1
        before = len(self.reply.text) + len(self.reply.reasoning)
        _take_all(self.reply, choices, "delta")
        return len(self.reply.text) + len(self.reply.reasoning) > before

    def end(self) -> Reply:
        """The reply, once the stream is over. Raises Broken where it was cut, Refused for a content filter."""
        reply = self.reply
        if not self._choices and self._done:
            raise Broken("empty choices: the stream holds no answer")
        if not (self._done or reply.finished):
            raise Broken("cut stream: it ended before the answer did")
        reply.check()
        return reply


def _take_all(reply: Reply, choices: list[Json], name: str) -> None:
    """Add what belongs to the answer: its first choice, up to its end."""
    for place, choice in enumerate(choices):
        if not isinstance(choice, Mapping):
            continue
        if reply.finished or choice.get("index", place) != 0:
            other = Reply()
            _take(other, choice, name)
            reply.surplus = reply.surplus or bool(other.text or other.reasoning)
        else:
            _take(reply, choice, name)


def _take(reply: Reply, choice: Mapping[str, Any], name: str) -> None:
    """Add a choice's text, reasoning, ids and end. The completions route has `text`, the chat route an object."""
    part = choice.get(name)
    if isinstance(part, Mapping):
        content, refusal = _text(part.get("content")), _text(part.get("refusal"))
        reply.text += content or refusal
        reply.refused = reply.refused or bool(refusal)
        reply.reasoning += _text(part.get("reasoning_content")) or _text(part.get("reasoning"))
    else:
        reply.text += _text(choice.get("text"))
    ids = choice.get("token_ids")
    if isinstance(ids, list) and all(isinstance(i, int) for i in ids):
        reply.token_ids += ids
    reason = choice.get("finish_reason")
    if isinstance(reason, str) and reason:
        reply.finish_reason, reply.finished = reason, True


def _text(value: Json) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(item.get("text")) for item in value if isinstance(item, Mapping))
    return ""


def _usage(value: Mapping[str, Json]) -> Mapping[str, Json] | None:
    usage = value.get("usage")
    return usage if isinstance(usage, Mapping) else None


def _object(data: bytes | str) -> dict[str, Json]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        start = data[:START].decode("utf-8", "replace") if isinstance(data, bytes) else data[:START]
        if MARKUP.match(start):
            raise Broken(HTML) from None
        raise Broken(f"malformed JSON: {error}") from None
    if not isinstance(value, dict):
        raise Broken("malformed JSON: the reply is not an object")
    return value


def raise_error(value: Mapping[str, Json]) -> None:
    """Raise for an error object that came with HTTP 200, as some gateways send it."""
    error = value.get("error")
    if not error:
        return
    message = error.get("message", error) if isinstance(error, Mapping) else error
    code = error.get("code") if isinstance(error, Mapping) else None
    text = f"the endpoint reported an error: {message}"
    if isinstance(code, int) and 400 <= code < 500 and code not in (408, 409, 429):
        raise Refused(text)
    raise Broken(text)
