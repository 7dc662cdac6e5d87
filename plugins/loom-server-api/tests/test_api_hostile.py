"""Endpoints that mean no good: redirects, replies without end, text behind the end, keys that come back."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from loom_server_api import verdict
from loom_server_api.body import Composer
from loom_server_api.card import describe
from loom_server_api.client import MOST_BYTES, key_of
from loom_server_api.plugin import ApiOptions
from loom_server_api.reply import Stream, whole
from loom_server_api.session import ApiSession

from loom_core.api import Arm, Generation, ModelCard, ModelError, Prompt, Request, Response, segment

Answer = Callable[[BaseHTTPRequestHandler], None]
GOOD = {"choices": [{"index": 0, "message": {"content": "42"}, "finish_reason": "stop"}]}


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """An endpoint whose every POST and GET is answered by `answer`; its address up to /v1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            answer(self)

        def do_GET(self) -> None:
            answer(self)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()


def sends(data: bytes, status: int = 200, **headers: str) -> Answer:
    """The answer that sends these bytes."""

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            to.send_header(name.replace("_", "-"), value)
        to.send_header("content-length", str(len(data)))
        to.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):
            to.wfile.write(data)

    return answer


def ask(base_url: str, **options: Any) -> Response:
    """The response to one request of 8 tokens."""
    given = ApiOptions(base_url=base_url, retries=0, timeout=20.0, **options)
    card = ModelCard(name="m", path=base_url, digest="", window=None, tokenizer=None)
    prompt = Prompt(segments=(segment("question", "Which?"),))
    limits = Generation(max_tokens=8)
    request = Request(key="k", job="k", step=0, prompt=prompt, generation=limits, group="", seed=0, chat="template")
    with ApiSession(card, given, Composer("m", given, "")) as session:
        (response,) = session.generate(iter([request]), Arm(name="dense"))
    return response


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_host_is_refused_and_named(status: int) -> None:
    seen: list[str] = []
    other = sends(json.dumps(GOOD).encode())
    with serving(lambda to: (seen.append(to.path), other(to))[1]) as elsewhere:
        there = elsewhere.replace("127.0.0.1", "localhost")
        with serving(sends(b"", status, location=f"{there}/chat/completions")) as here:
            response = ask(here)
    assert response.finish == "error" and f"redirects (HTTP {status}) to {there}" in str(response.error)
    assert seen == []


def test_a_redirect_on_the_same_host_that_keeps_the_body_is_followed() -> None:
    def answer(to: BaseHTTPRequestHandler) -> None:
        moved = to.path == "/v1/chat/completions"
        (sends(b"", 307, location="/v2/chat") if moved else sends(json.dumps(GOOD).encode()))(to)

    with serving(answer) as here:
        assert ask(here).text == "42"


def test_models_are_asked_of_this_host_alone() -> None:
    with serving(sends(b'{"data": [{"id": "m"}]}')) as elsewhere:
        there = elsewhere.replace("127.0.0.1", "localhost")
        with serving(sends(b"", 307, location=f"{there}/models")) as here, pytest.raises(ModelError) as caught:
            describe("m", ApiOptions(base_url=here))
    assert "redirects to another host, localhost" in str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_a_reply_has_a_size_limit(packed: bool, kind: str) -> None:
    data = b'{"choices": [{"index": 0, "message": {"content": "' + b"x" * (MOST_BYTES + 10**6)
    headers = {"content_type": kind, **({"content_encoding": "gzip"} if packed else {})}
    with serving(sends(gzip.compress(data) if packed else data, **headers)) as here:
        response = ask(here)
    assert response.finish == "error" and "larger than any answer to this request" in str(response.error)


def test_a_packed_list_of_models_is_refused() -> None:
    packed = gzip.compress(b'{"data": []}')
    with serving(sends(packed, content_encoding="gzip")) as here, pytest.raises(ModelError) as caught:
        describe("m", ApiOptions(base_url=here))
    assert "its reply is packed" in str(caught.value)


def test_more_text_than_its_tokens_can_hold_is_counted_by_loom() -> None:
    value = {**GOOD, "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    value["choices"] = [{"index": 0, "message": {"content": "word " * 5000}, "finish_reason": "stop"}]
    with serving(sends(json.dumps(value).encode())) as here:
        response = ask(here)
    assert response.n_out > 1000 and {verdict.WRONG_USAGE, verdict.IGNORED_LIMIT} <= set(response.notes)


# --- what is no answer ------------------------------------------------------------------------------------------------


def event(text: str, finish: str | None = None, index: int = 0) -> str:
    return "data: " + json.dumps({"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]})


def test_what_comes_behind_the_end_or_in_other_choices_is_no_answer() -> None:
    stream = Stream()
    for line in (event("O", index=1), event("a "), event("b", "stop"), event("INJECTED"), "data: [DONE]"):
        stream.line(line)
    reply = stream.end()
    assert (reply.text, reply.surplus, reply.finish_reason) == ("a b", True, "stop")
    both = [{"index": i, "message": {"content": text}, "finish_reason": "stop"} for i, text in ((1, "O"), (0, "a"))]
    reply = whole(json.dumps({"choices": both}).encode())
    assert (reply.text, reply.surplus) == ("a", True)
    clean = Stream()
    for line in (event("a"), event("", "stop"), "data: [DONE]"):
        clean.line(line)
    assert (clean.end().text, clean.end().surplus) == ("a", False)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_with_a_line_break_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIN_AUTH", "sk-live\nplanted-secret")
    with pytest.raises(ModelError, match="cannot be sent") as caught:
        key_of(ApiOptions(key_env="PLAIN_AUTH"))
    assert "PLAIN_AUTH" in str(caught.value) and "planted" not in str(caught.value)
