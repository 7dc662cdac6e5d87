"""The api server's session and card against an endpoint that misbehaves: each request answered or recorded, once."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from loom_server_api import verdict
from loom_server_api.card import describe
from loom_server_api.plugin import ApiOptions
from loom_server_api.server import ApiServer
from loom_server_api.session import ApiSession
from loom_server_api.testing import Endpoint, prompt_of

from loom_core.api import Arm, Generation, ModelError, Part, Prompt, Request, Response, installed, segment
from loom_core.api.serving import readers

DENSE = Arm(name="dense")
PASSING = ("429", "429-after", "500", "503", "reset", "cut", "malformed", "empty", "error-in-200")


def requests(n: int, **generation: Any) -> Iterator[Request]:
    """Questions on contexts of four."""
    for i in range(n):
        yield Request(
            key=f"key{i}",
            job=f"job{i}",
            step=0,
            prompt=Prompt(segments=(segment("context", f"text {i // 4} " * 20), segment("question", f"what is {i} ?"))),
            generation=Generation(max_tokens=8, **generation),
            group=f"group{i // 4}",
            seed=i,
            chat="template" if i % 2 else "completion",
        )


def opened(endpoint: Endpoint, **options: Any) -> AbstractContextManager[ApiSession]:
    """A session on the endpoint."""
    return ApiServer(ApiOptions(base_url=endpoint.base_url, **options)).open("echo", None)


def ask(endpoint: Endpoint, n: int = 20, *, generation: Any = None, **options: Any) -> dict[str, Response]:
    """The responses by key; each key comes once."""
    options = {"concurrency": 8, "backoff": 0.01, "timeout": 5.0, **options}
    with opened(endpoint, **options) as session:
        found = list(session.generate(requests(n, **(generation or {})), DENSE))
    assert len({response.key for response in found}) == len(found) == n
    assert all((response.error is not None) == (response.finish == "error") for response in found)
    return {response.key: response for response in found}


@pytest.mark.parametrize("stream", [True, False])
def test_answers_counts_times_and_concurrency(stream: bool) -> None:
    with Endpoint(seconds=0.03) as endpoint:
        found = ask(endpoint, 40, stream=stream)
    assert 2 <= endpoint.most_at_once <= 8
    for i in range(40):
        response = found[f"key{i}"]
        assert (response.text, response.finish, response.n_out, response.error) == (f"is {i} ?", "stop", 3, None)
        assert response.n_in == 44 and response.notes == () and response.timing.batch == 8
        timing = response.timing
        assert timing.queued <= timing.started < timing.ended
        assert (timing.first_token is not None) == stream
        assert not stream or timing.started < (timing.first_token or 0) <= timing.ended
    assert Counter(seen.path for seen in endpoint.seen) == {"/v1/chat/completions": 20, "/v1/completions": 20}
    assert all(seen.body["temperature"] == 0 for seen in endpoint.seen)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", PASSING)
def test_a_failure_that_passes_is_asked_again(fault: str, stream: bool) -> None:
    first: Counter[str] = Counter()

    def once(body: dict[str, Any]) -> str:
        first[prompt_of(body)] += 1
        return fault if first[prompt_of(body)] <= 2 else ""

    with Endpoint(choose=once) as endpoint:
        found = ask(endpoint, 6, stream=stream)
    assert [found[f"key{i}"].text for i in range(6)] == [f"is {i} ?" for i in range(6)]
    assert set(first.values()) == {3}


REASONS = {
    "429": "HTTP 429",
    "500": "HTTP 500",
    "reset": "connection failed",
    "cut": "cut ",
    "malformed": "malformed JSON",
    "empty": "empty choices",
    "error-in-200": "the endpoint reported an error: the provider failed",
    "hang": "timeout: no answer within 0.2 s",
    "filter": "content filter",
    "filter-400": "content filter",
    "overflow": "context overflow reported by the server",
    "quota": "the quota is used up",
    "key": "the key was refused",
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", REASONS)
def test_a_failure_for_good_is_a_recorded_error(fault: str, stream: bool) -> None:
    with Endpoint(choose=lambda body: fault if "what is 3 ?" in prompt_of(body) else "") as endpoint:
        found = ask(endpoint, 6, stream=stream, retries=1, timeout=0.2 if fault == "hang" else 5.0)
    error = found["key3"].error or ""
    assert error.startswith(REASONS[fault]) and "\n" not in error and len(error) < 350
    assert [key for key, response in found.items() if response.error] == ["key3"], "the others are answered"
    attempts = sum(seen.fault == fault for seen in endpoint.seen)
    assert attempts == (2 if fault in (*PASSING, "hang") else 1)


def test_retry_after_is_honoured_up_to_ones_patience() -> None:
    times: dict[str, list[float]] = {}

    def once(body: dict[str, Any]) -> str:
        seen = times.setdefault(prompt_of(body), [])
        seen.append(time.monotonic())
        return "429-after" if len(seen) == 1 else ""

    with Endpoint(choose=once, retry_after="0.5") as endpoint:
        found = ask(endpoint, 4, backoff=0.0)
    assert all(response.error is None for response in found.values())
    assert all(second - first >= 0.5 for first, second in times.values())
    with Endpoint(faults={"429-after": 1.0}, retry_after="3600") as endpoint:
        found = ask(endpoint, 4)
    assert len(endpoint.seen) == 4
    assert "it asks to wait 3600 s, patience is 120 s" in (found["key0"].error or "")


@pytest.mark.parametrize("stream", [True, False])
def test_a_thousand_requests_through_every_fault(stream: bool) -> None:
    shares = dict.fromkeys((*PASSING, "slow", "wrong-usage", "no-usage", "filter", "overflow", "hang"), 0.025)
    with Endpoint(faults=shares, slow_seconds=0.05) as endpoint:
        found = ask(endpoint, 1000, concurrency=64, timeout=1.0, stream=stream)
    faults = Counter(seen.fault for seen in endpoint.seen)
    assert all(faults[name] > 5 for name in shares)
    failed = Counter((response.error or "").partition(" (")[0] for response in found.values() if response.error)
    assert failed["content filter: the endpoint withheld the answer"] == faults["filter"]
    assert failed["context overflow reported by the server"] == faults["overflow"]
    for i in range(1000):
        response = found[f"key{i}"]
        assert response.error or (response.text == f"is {i} ?" and response.n_out <= 8 and response.n_in < 300)
    notes = Counter(note for response in found.values() for note in response.notes)
    assert notes == {verdict.WRONG_USAGE: faults["wrong-usage"], verdict.NO_USAGE: faults["no-usage"]}


@pytest.mark.parametrize("stream", [True, False])
def test_an_endpoint_that_ignores_limits_is_noticed(stream: bool) -> None:
    with Endpoint(faults={"ignore-stop": 1.0}) as endpoint:
        found = ask(endpoint, 4, stream=stream, generation={"stop": (" ?",)})
    assert {r.text for r in found.values()} == {f"is {i}" for i in range(4)}
    assert {r.notes for r in found.values()} == {()}, "nothing followed the stop string"
    with Endpoint(faults={"ignore-stop": 1.0}) as endpoint:
        found = ask(endpoint, 4, stream=stream, generation={"stop": ("is",)})
    assert {(r.text, r.finish, r.notes) for r in found.values()} == {("", "stop", (verdict.IGNORED_STOP,))}
    with Endpoint(faults={"ignore-limit": 1.0}) as endpoint:
        found = ask(endpoint, 4, stream=stream)
    assert {r.notes for r in found.values()} == {(verdict.IGNORED_LIMIT,)}


def test_reasoning_is_kept_apart() -> None:
    with Endpoint(extra_delta={"reasoning_content": "let me see"}) as endpoint:
        found = ask(endpoint, 2, stream=False, route="chat")
        streamed = ask(endpoint, 2, route="chat")
    for response in (*found.values(), *streamed.values()):
        assert response.reasoning == "let me see" and response.text.startswith("is ")


def test_counts_are_estimated_where_a_stream_brings_none() -> None:
    with Endpoint() as endpoint:
        asked = ask(endpoint, 4, omit=("stream_options",))
        assert {r.notes for r in asked.values()} == {(verdict.NO_USAGE,)}
        assert {r.n_out for r in asked.values()} == {2}, "six characters are estimated as two tokens"


def test_nothing_to_do_and_stopping_midway() -> None:
    with Endpoint(seconds=0.05) as endpoint:
        assert ask(endpoint, 0) == {}
        with opened(endpoint, concurrency=4) as session:
            answers = session.generate(requests(100), DENSE)
            first = next(answers)
            answers.close()
            assert first.error is None
            again = list(session.generate(requests(3), DENSE))
        assert len(again) == 3
    assert len(endpoint.seen) < 20, "requests are taken as they are needed"
    assert [t.name for t in threading.enumerate() if t.name == "loom-api"] == []


def test_requests_are_taken_lazily_and_by_group() -> None:
    taken: list[int] = []

    def source() -> Iterator[Request]:
        for i, request in enumerate(requests(500)):
            taken.append(i)
            yield request

    with Endpoint(seconds=0.01) as endpoint, opened(endpoint, concurrency=2) as session:
        answers = session.generate(source(), DENSE)
        next(answers)
        assert len(taken) <= 8
        answers.close()


def test_a_prompt_that_cannot_be_sent_is_its_own_error() -> None:
    bad = Request(
        key="bad",
        job="j",
        step=0,
        prompt=Prompt(segments=(segment("question", "?"), segment("prefill", "A:", "assistant"))),
        generation=Generation(max_tokens=4),
        group="g",
        seed=0,
        chat="template",
    )
    with Endpoint() as endpoint, opened(endpoint) as session:
        found = {r.key: r for r in session.generate(iter([bad, *requests(2)]), DENSE)}
    assert "begins the assistant's answer" in (found["bad"].error or "") and found["key1"].error is None


def test_arms_of_local_weights_are_refused_here_too() -> None:
    part = Part(name="snapkv", version="1", kind="model", options=None, text="snapkv")
    arm = Arm(name="snapkv", parts=(part,))
    with Endpoint() as endpoint, opened(endpoint) as session, pytest.raises(ModelError, match="cannot reach its cache"):
        next(session.generate(requests(1), arm))


# --- the card ---------------------------------------------------------------------------------------------------------


def test_card_without_weights() -> None:
    models = ({"id": "echo", "owned_by": "vllm", "max_model_len": 4096, "created": 1}, {"id": "other"})
    with Endpoint(models=models) as endpoint:
        first = describe("echo", ApiOptions(base_url=endpoint.base_url))
        assert (first.card.window, first.engine, first.card.tokenizer) == (4096, "vllm", None)
        endpoint.models = ({**models[0], "created": 2}, models[1])
        assert describe("echo", ApiOptions(base_url=endpoint.base_url + "/")).card.digest == first.card.digest
        endpoint.models = ({**models[0], "max_model_len": 8192}, models[1])
        assert describe("echo", ApiOptions(base_url=endpoint.base_url)).card.digest != first.card.digest
        assert describe("echo", ApiOptions(base_url=endpoint.base_url, window=100)).card.window == 100
        extra = describe("other", ApiOptions(base_url=endpoint.base_url, extra='{"top_k":1}')).card
        assert extra.digest != describe("other", ApiOptions(base_url=endpoint.base_url)).card.digest
        unlisted = describe("folder/model", ApiOptions(base_url=endpoint.base_url, check=False)).card
        assert unlisted.window is None and unlisted.facts["listed"] is False


def test_wrong_url_key_and_model_are_said_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        describe("echo", ApiOptions(base_url=nobody))
    assert nobody in str(caught.value)
    with Endpoint(key="the-right-key") as endpoint:
        monkeypatch.setenv("MY_ACCESS", "planted-secret-42")
        with pytest.raises(ModelError, match="refuses the key") as caught:
            describe("echo", ApiOptions(base_url=endpoint.base_url, key_env="MY_ACCESS"))
        assert "MY_ACCESS" in str(caught.value) and "planted-secret-42" not in str(caught.value)
        monkeypatch.setenv("MY_ACCESS", "the-right-key")
        with pytest.raises(ModelError, match="no model 'ecko'") as caught:
            describe("ecko", ApiOptions(base_url=endpoint.base_url, key_env="MY_ACCESS"))
        assert "echo" in str(caught.value)
        with pytest.raises(ModelError, match="no OpenAI-compatible endpoint") as caught:
            describe("echo", ApiOptions(base_url=endpoint.base_url.removesuffix("/v1"), key_env="MY_ACCESS"))
        assert "/v1" in caught.value.hint


def test_a_key_that_an_error_repeats_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_ACCESS", "planted-secret-42")
    with Endpoint(key="another") as endpoint:
        found = ask(endpoint, 2, check=False, key_env="MY_ACCESS")
    for response in found.values():
        assert (response.error or "").startswith("the key was refused (HTTP 401: incorrect key: Bearer [redacted]")


def test_tokenizer_comes_from_a_server_that_reads_folders() -> None:
    try:
        import loom_model_tiny
        import loom_server_hf  # noqa: F401
    except ImportError:
        pytest.skip("needs loom-server-hf and loom-model-tiny")
    path = str(loom_model_tiny.path())
    hf = installed().servers.get("hf")
    server = installed().load(hf)(hf.spec.options())
    other = server.describe(path, hf.spec.model_options()).tokenizer
    mine = readers.tokenizer(path, asked_by="test")
    assert mine.digest == other.digest and mine.encode("one two") == other.encode("one two")
    with pytest.raises(ModelError):
        readers.tokenizer("./nowhere", asked_by="test")
    with Endpoint() as endpoint:
        card = describe("echo", ApiOptions(base_url=endpoint.base_url, tokenizer=path)).card
    assert card.tokenizer is not None and card.tokenizer.digest == mine.digest
