"""Embeddings of an endpoint: batches, cache, retries, keys, and endpoints that misbehave. The endpoint is a double."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from loom_accel_openai_embeddings.plugin import OpenAIEmbeddingsOptions
from loom_accel_openai_embeddings.retriever import MOST_FAILURES, EndpointRetriever

from loom_core.api import ModelError, Prompt, segment
from loom_core.api.doubles import ToyTokenizer

VOCABULARY = ("pass", "key", "river", "lamp")


class Double(ThreadingHTTPServer):
    """Counts words of a small vocabulary as its embedding; keeps what it was sent; fails as told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.failing: list[int] = []
        self.mangle = ""

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Double

    def do_POST(self) -> None:
        """Answer with vectors, in reverse order, or as told."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers["Authorization"])
        status = self.server.failing.pop(0) if self.server.failing else 200
        rows = [
            {"object": "embedding", "index": i, "embedding": [1.0, *(float(text.lower().count(w)) for w in VOCABULARY)]}
            for i, text in enumerate(body["input"])
        ]
        if self.server.mangle == "short":
            rows.pop()
        answer: Any = {"object": "list", "model": "m", "data": rows[::-1]}
        answer["usage"] = {"prompt_tokens": 7 * len(rows), "total_tokens": 7 * len(rows)}
        if self.server.mangle == "text":
            answer = "no embeddings today"
        if status != 200:
            answer = {"error": {"message": f"refused {self.headers['Authorization']}"}}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[Double]:
    """A running double."""
    server = Double()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone, and a planted key."""
    monkeypatch.setenv("LOOM_CACHE", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-4242")
    return tmp_path


def retriever(endpoint: Double, **options: Any) -> EndpointRetriever:
    """A retriever that asks the double."""
    return EndpointRetriever(OpenAIEmbeddingsOptions(base_url=endpoint.url, model="m", **options))


SENTENCES = [f"The river and lamp number {i} were quiet that evening. " for i in range(10)]
SENTENCES[6] = "The pass key is 4711, and the key is worth a pass. "
PROMPT = Prompt(segments=(segment("context", "".join(SENTENCES)), segment("question", "What is the pass key?")))


def test_batches_order_cache_and_metering(endpoint: Double) -> None:
    made = retriever(endpoint, k=1, size=60, batch=4)
    with made.open(ToyTokenizer()):
        first = made.rewrite(PROMPT, ToyTokenizer())
        second = made.rewrite(PROMPT, ToyTokenizer())
    assert first.prompt.context == SENTENCES[6]
    assert [len(body["input"]) for body in endpoint.bodies] == [4, 4, 2, 1]
    assert endpoint.bodies[0]["model"] == "m" and endpoint.bodies[0]["encoding_format"] == "float"
    assert (first.calls, first.read_tokens) == (4, 77) and (second.calls, second.read_tokens) == (0, 0)
    again = retriever(endpoint, k=1, size=60)
    with again.open(ToyTokenizer()):
        assert again.rewrite(PROMPT, ToyTokenizer()).prompt == first.prompt
    assert len(endpoint.bodies) == 4, "another process finds the vectors on disk"
    assert set(endpoint.keys) == {"Bearer sk-planted-4242"}


def test_without_a_cache_on_disk_each_opening_asks_anew(endpoint: Double, cache: Path) -> None:
    for _ in range(2):
        made = retriever(endpoint, k=1, size=60, cache=False)
        with made.open(ToyTokenizer()):
            made.rewrite(PROMPT, ToyTokenizer())
    assert len(endpoint.bodies) == 4 and not list(cache.iterdir())


def test_a_damaged_cache_costs_only_time(endpoint: Double, cache: Path) -> None:
    (cache / "embeddings.sqlite").write_bytes(b"no database at all " * 100)
    made = retriever(endpoint, k=1, size=60)
    with made.open(ToyTokenizer()):
        assert made.rewrite(PROMPT, ToyTokenizer()).prompt.context == SENTENCES[6]


def test_failures_that_pass_are_retried(endpoint: Double) -> None:
    endpoint.failing = [500, 429]
    made = retriever(endpoint, k=1, size=60, retries=2)
    with made.open(ToyTokenizer()):
        assert made.rewrite(PROMPT, ToyTokenizer()).prompt.context == SENTENCES[6]
    assert len(endpoint.bodies) == 4


def test_an_endpoint_that_keeps_failing_is_one_clear_message_and_is_left_alone(endpoint: Double) -> None:
    endpoint.failing = [500] * 100
    made = retriever(endpoint, size=60, retries=1)
    with made.open(ToyTokenizer()):
        for _ in range(MOST_FAILURES + 3):
            with pytest.raises(ModelError) as caught:
                made.rewrite(PROMPT, ToyTokenizer())
    assert len(endpoint.bodies) == 2 * MOST_FAILURES
    said = str(caught.value)
    assert "the endpoint returned no embeddings" in said and endpoint.url in said and "not asked again" in said
    assert "4242" not in said


@pytest.mark.parametrize(("mangle", "said"), [("short", "usable vectors came back"), ("text", "no embeddings")])
def test_answers_that_are_no_embeddings(endpoint: Double, mangle: str, said: str) -> None:
    endpoint.mangle = mangle
    made = retriever(endpoint, size=60, retries=0)
    with made.open(ToyTokenizer()), pytest.raises(ModelError) as caught:
        made.rewrite(PROMPT, ToyTokenizer())
    assert said in str(caught.value)


def test_nobody_listens() -> None:
    options = OpenAIEmbeddingsOptions(base_url="http://127.0.0.1:9/v1", retries=0, timeout=2.0, size=60)
    with pytest.raises(ModelError) as caught:
        EndpointRetriever(options).rewrite(PROMPT, ToyTokenizer())
    assert "the endpoint returned no embeddings" in str(caught.value)


def test_white_space_is_not_sent(endpoint: Double) -> None:
    parts = (segment("context", " " * 50 + "\n\n" + SENTENCES[6]), segment("question", "key?"))
    made = retriever(endpoint, k=1, size=52, cache=False)
    assert made.rewrite(Prompt(segments=parts), ToyTokenizer()).prompt.context.strip() == SENTENCES[6].strip()
    assert all(text.strip() for body in endpoint.bodies for text in body["input"])


@pytest.mark.parametrize("url", ["ftp://x/v1", "https://user:secret@host/v1", "https://host/v1?key=1", "nonsense"])
def test_bad_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        OpenAIEmbeddingsOptions(base_url=url)
