"""Bodies, replies, failures and verdicts of the api server, without a network."""

from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, strategies as st
from loom_server_api import verdict
from loom_server_api.body import APPENDED, PLAIN_ON_CHAT, Call, Composer, read_extra
from loom_server_api.failure import Failure, Redactor, StatusError, failure_of, message_of, retry_after
from loom_server_api.plugin import ApiOptions
from loom_server_api.reply import Broken, Refused, Reply, Stream, whole
from loom_server_api.verdict import Counts, price, response_of

from loom_core.api import Generation, ModelError, Prompt, Request, Timing, UsageError, build, segment
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import by_group, first_stop
from loom_core.contract.options import identity

TIMING = Timing(queued=0.0, started=0.0, first_token=None, ended=1.0)
CONTEXT = segment("context", "one two three four. ")
QUESTION = segment("question", "Which?")


def request(*parts: Any, chat: Any = "template", **changes: Any) -> Request:
    """A request; `changes` go to the generation or, where it has no such field, to the request."""
    values = {"max_tokens": 8, **{k: v for k, v in changes.items() if k in Generation.__dataclass_fields__}}
    made = Request(
        key="k",
        job="j",
        step=0,
        prompt=Prompt(segments=parts or (CONTEXT, QUESTION)),
        generation=Generation(**values),
        group="g",
        seed=changes.get("job_seed", 2**62 + 5),
        chat=chat,
    )
    return replace(made, **{k: v for k, v in changes.items() if k in ("token_ids", "group", "key")})


def compose(made: Request, engine: str = "", **options: Any) -> Call:
    """The call that these options make of a request."""
    return Composer("m", ApiOptions(**options), engine).compose(made)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"base_url": "127.0.0.1:8000"},
        {"base_url": "https://user:planted-secret@host/v1"},
        {"base_url": "https://host/v1?api_key=planted-secret"},
        {"key_env": "sk-planted-secret"},
        {"token_ids": "true"},
        {"token_ids": "true", "tokenizer": "x", "route": "chat"},
        {"price_in": "1"},
        {"price_cached": "1"},
        {"timeout": "0"},
        {"concurrency": "0"},
        {"omit": "{temperature,prompt}"},
    ],
    ids=str,
)
def test_impossible_options_are_refused_without_repeating_secrets(values: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        build(ApiOptions, values, owner="server api")
    assert "planted-secret" not in str(caught.value)


def test_only_what_is_asked_enters_keys() -> None:
    fast = build(ApiOptions, {"concurrency": "128", "retries": "1", "timeout": "5", "stream": "false"}, owner="api")
    assert identity(fast) == identity(ApiOptions())
    assert identity(ApiOptions(omit=("seed",))) != identity(ApiOptions())


# --- bodies -----------------------------------------------------------------------------------------------------------


def test_every_limit_is_sent_and_temperature_zero_too() -> None:
    call = compose(request(stop=("\n", "END"), top_p=0.9, min_tokens=2), stream=False)
    assert call.route == "chat"
    assert call.body == {
        "model": "m",
        "max_tokens": 8,
        "temperature": 0.0,
        "top_p": 0.9,
        "seed": 5,
        "stop": ["\n", "END"],
        "min_tokens": 2,
        "messages": [{"role": "user", "content": "one two three four. Which?"}],
    }
    assert json.loads(json.dumps(call.body))["temperature"] == 0


def test_fields_are_left_out_renamed_and_added_as_asked() -> None:
    options = {"omit": ("temperature", "stream_options"), "limit_field": "max_completion_tokens"}
    body = compose(request(), **options, extra='{"reasoning_effort":"low","top_k":1}').body
    assert "temperature" not in body and "stream_options" not in body and "max_tokens" not in body
    assert body["max_completion_tokens"] == 8 and body["top_k"] == 1 and body["reasoning_effort"] == "low"


def test_extra_comes_from_files_too(tmp_path: Any) -> None:
    (tmp_path / "a.toml").write_text("top_k = 1\n[chat_template_kwargs]\nenable_thinking = false\n")
    (tmp_path / "a.json").write_text('{"top_k": 1}')
    assert read_extra(str(tmp_path / "a.toml")) == {"top_k": 1, "chat_template_kwargs": {"enable_thinking": False}}
    assert read_extra(str(tmp_path / "a.json")) == {"top_k": 1}


@pytest.mark.parametrize(
    "text", ['{"temperature":1}', '{"n":2}', "{no json}", "nowhere.toml", '{"headers":{"api_key":"planted-secret"}}']
)
def test_bad_extra_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_extra(text)
    assert "planted-secret" not in str(caught.value)


def test_routes() -> None:
    plain, ids = request(chat="completion"), request(token_ids=(5, 6, 7))
    assert compose(plain).body["prompt"] == "one two three four. Which?"
    assert compose(plain).route == "completions" and compose(request()).route == "chat"
    forced = compose(plain, route="chat")
    assert forced.route == "chat" and forced.notes == (PLAIN_ON_CHAT,)
    sent = compose(ids, token_ids=True, tokenizer="x")
    assert (sent.route, sent.body["prompt"], sent.n_ids) == ("completions", [5, 6, 7], 3)
    assert compose(ids).route == "chat", "ids are sent only where they are asked for"
    with pytest.raises(ModelError, match="chat template"):
        compose(request(), route="completions")


def test_prefill_is_refused_continued_or_appended() -> None:
    made = request(CONTEXT, QUESTION, segment("prefill", "Answer:", "assistant"))
    for options in ({}, {"prefill": "refuse"}):
        with pytest.raises(ModelError, match="begins the assistant's answer"):
            compose(made, **options)
    for call in (compose(made, engine="vllm"), compose(made, prefill="continue")):
        assert call.body["messages"][-1] == {"role": "assistant", "content": "Answer:"}
        assert call.body["continue_final_message"] is True and call.body["add_generation_prompt"] is False
    last = compose(made, prefill="assistant").body
    assert last["messages"][-1]["role"] == "assistant" and "continue_final_message" not in last
    appended = compose(made, prefill="append")
    assert appended.body["messages"] == [{"role": "user", "content": "one two three four. Which?Answer:"}]
    assert appended.notes == (APPENDED,)
    assert compose(replace(made, chat="completion")).body["prompt"].endswith("Which?Answer:")


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.integers(1, 20))
def test_requests_of_a_group_stay_together_and_none_is_lost(groups: list[str], most: int) -> None:
    made = [request(group=name, key=str(i)) for i, name in enumerate(groups)]
    out = list(by_group(iter(made), most))
    assert sorted(r.key for r in out) == sorted(r.key for r in made)
    for start in range(0, len(out), most):
        names = [r.group for r in out[start : start + most]]
        assert len([1 for a, b in itertools.pairwise(names) if a != b]) == max(0, len(set(names)) - 1)


# --- replies ----------------------------------------------------------------------------------------------------------


def body_of(choice: dict[str, Any] | None, **more: Any) -> bytes:
    """A JSON body with one choice or none."""
    return json.dumps({"choices": [] if choice is None else [choice], **more}).encode()


def test_whole_replies() -> None:
    message = {"content": "hi", "reasoning_content": "hm"}
    reply = whole(body_of({"message": message, "finish_reason": "stop"}, usage={"prompt_tokens": 3}))
    assert (reply.text, reply.reasoning, reply.finish_reason, reply.usage) == ("hi", "hm", "stop", {"prompt_tokens": 3})
    assert whole(body_of({"text": "hi", "finish_reason": "length", "token_ids": [1, 2]})).token_ids == [1, 2]
    assert whole(body_of({"message": {"content": None, "reasoning": "hm"}})).reasoning == "hm"
    assert whole(body_of({"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}})).text == "ab"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"{", Broken),
        (b"[]", Broken),
        (b"\xff", Broken),
        (b"<html>", Broken),
        (body_of(None), Broken),
        (b'{"choices": null}', Broken),
        (b'{"choices": [null]}', Broken),
        (body_of({"message": {"content": ""}, "finish_reason": "content_filter"}), Refused),
        (body_of({"message": {"content": "x"}, "finish_reason": "error"}), Broken),
        (b'{"error": {"message": "no", "code": 502}}', Broken),
        (b'{"error": {"message": "no", "code": 400}}', Refused),
        (b'{"error": "no"}', Broken),
    ],
)
def test_replies_that_are_none(data: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        whole(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_reply_or_a_reason(data: bytes) -> None:
    for read in (lambda: whole(data), lambda: _streamed(data.decode("utf-8", "replace").splitlines())):
        try:
            read()
        except (Broken, Refused) as error:
            assert str(error)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "message", "delta", "content", "usage", "error", "finish_reason", "token_ids"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_gives_a_reply_or_a_reason(value: Any) -> None:
    for shape in (value, {"choices": [value]}, {"choices": [{"message": value, "delta": value}], "usage": value}):
        with contextlib.suppress(Broken, Refused):
            response_of(
                request(),
                Call("chat", {}),
                whole(json.dumps(shape).encode()),
                TIMING,
                options=ApiOptions(),
                tokenizer=None,
            )
        with contextlib.suppress(Broken, Refused):
            _streamed([f"data: {json.dumps(shape)}", "data: [DONE]"])


def _streamed(lines: list[str]) -> Reply:
    stream = Stream()
    for line in lines:
        stream.line(line)
    return stream.end()


def chunk(**choice: Any) -> str:
    """One event of a stream."""
    return "data: " + json.dumps({"choices": [choice]})


def test_streams_are_put_together() -> None:
    stream = Stream()
    lines = [
        ": keep-alive",
        chunk(delta={"role": "assistant", "content": ""}, finish_reason=None),
        chunk(delta={"reasoning_content": "hm"}),
        chunk(delta={"content": "he"}),
        chunk(delta={"content": "llo"}),
        chunk(delta={}, finish_reason="length"),
        'data: {"choices": [], "usage": {"prompt_tokens": 4}}',
        "data: [DONE]",
        chunk(delta={"content": "after the end"}),
    ]
    assert [stream.line(line) for line in lines] == [False, False, True, True, True, False, False, False, False]
    reply = stream.end()
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("hello", "hm", "length")
    assert reply.usage == {"prompt_tokens": 4}
    assert _streamed([chunk(text="a"), chunk(text="b", finish_reason="stop")]).text == "ab", "no [DONE], but an end"
    assert _streamed([chunk(text="a"), "data: [DONE]"]).finish_reason is None, "an end without a reason"


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["data: [DONE]"],
        [chunk(text="a")],
        [chunk(text="a"), "data: {"],
        [chunk(text="a"), 'data: {"error": {"message": "no"}}', "data: [DONE]"],
    ],
)
def test_streams_that_are_cut_or_broken(lines: list[str]) -> None:
    with pytest.raises(Broken):
        _streamed(lines)


# --- failures ---------------------------------------------------------------------------------------------------------


def status(code: int, body: Any = "", **headers: str) -> Failure:
    """The failure of an HTTP status."""
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return failure_of(StatusError(code, content, {k.replace("_", "-"): v for k, v in headers.items()}), 1.0)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(code: int) -> None:
    assert status(code).passing
    assert status(code, retry_after="7").wait == 7.0


def test_what_will_not_pass_is_said_shortly() -> None:
    overflow = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
    llama = "the request exceeds the available context size, try increasing it"
    tgi = "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 10 `max_new_tokens`"
    for body in (
        {"error": {"message": overflow, "code": "context_length_exceeded"}},
        {"object": "error", "message": overflow},
        {"error": {"message": llama, "type": "exceed_context_size_error"}},
        {"error": tgi, "error_type": "validation"},
        {"detail": "Prompt is too long"},
    ):
        found = status(400, body)
        assert found.reason.startswith("context overflow") and not found.passing, body
    assert status(400, {"error": {"message": "blocked", "code": "content_filter"}}).reason.startswith("content filter")
    assert not status(429, {"error": {"message": "pay", "code": "insufficient_quota"}}).passing
    assert status(401, {"error": {"message": "bad"}}).reason == "the key was refused (HTTP 401: bad)"
    assert not status(404, {"detail": "no"}).passing and not status(422, {"detail": [{"msg": "stop"}]}).passing
    assert not failure_of(ValueError("odd"), 1.0).passing
    assert failure_of(TimeoutError(), 3.0) == Failure("timeout: no answer within 3 s", passing=True)


def test_retry_after_in_all_its_forms() -> None:
    assert retry_after({}) is None and retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "-3"}) == 0.0
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    later = retry_after({"retry-after": formatdate(4102444800, usegmt=True)})
    assert later is not None and later > 1e6


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["message", "detail", "error"]), x),
        max_leaves=6,
    )
)
def test_words_of_any_error_body(body: Any) -> None:
    assert isinstance(message_of(body), str)


def test_keys_are_taken_out_of_texts() -> None:
    hide = Redactor("sk-planted-secret")
    assert hide("key sk-planted-secret\n is wrong") == "key [redacted] is wrong"
    assert Redactor("none")("none is wrong") == "none is wrong"
    assert len(hide("x" * 5000)) == 300


# --- verdicts ---------------------------------------------------------------------------------------------------------


def judged(
    made: Request, text: str, usage: Any = None, *, tokenizer: Any = None, call: Call | None = None, **reply: Any
) -> Any:
    """The response to a reply of this text."""
    found = Reply(text=text, usage=usage, finished=True, **{"finish_reason": "stop", **reply})
    options = ApiOptions(price_in=1.0, price_out=10.0, price_cached=0.1)
    return response_of(made, call or Call("chat", {}), found, TIMING, options=options, tokenizer=tokenizer)


def test_good_counts_are_taken_and_priced() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 64}}
    made = judged(request(), "four.", usage)
    assert (made.n_in, made.n_out, made.n_cached, made.finish, made.notes) == (100, 2, 64, "stop", ())
    assert made.cost == pytest.approx((36 * 1.0 + 64 * 0.1 + 2 * 10.0) / 1e6)
    assert price(ApiOptions(), Counts(1, 1, 0)) is None


def test_an_ignored_stop_is_cut_and_noted() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 4}
    made = judged(request(stop=("\n", "##")), "four## and more\n", usage, finish_reason="length")
    assert (made.text, made.finish, made.notes) == ("four", "stop", (verdict.IGNORED_STOP,))
    kept = judged(request(stop=("##",)), "four##", usage)
    assert (kept.text, kept.notes) == ("four", ()), "some engines hand the stop string out; they did stop"
    assert first_stop("abc", ("c", "b")) == (1, 1) and first_stop("abc", ("x", "")) is None


def test_an_ignored_limit_is_noted_and_cut_where_a_tokenizer_can() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 12}
    made = judged(request(), "abcdefghijkl", usage)
    assert (made.text, made.n_out, made.notes) == ("abcdefghijkl", 12, (verdict.IGNORED_LIMIT,))
    cut = judged(request(), "abcdefghijkl", usage, tokenizer=ToyTokenizer())
    assert (cut.text, cut.finish) == ("abcdefgh", "length") and verdict.CUT_TO_LIMIT in cut.notes
    early = judged(request(min_tokens=1, stop=("\n",)), "", {"prompt_tokens": 10, "completion_tokens": 1})
    assert early.notes == (verdict.EARLY_STOP,)
    assert judged(request(min_tokens=5), "a", {"prompt_tokens": 10, "completion_tokens": 1}).notes == (
        verdict.IGNORED_MINIMUM,
    )


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": 10**9, "completion_tokens": 1},
        {"prompt_tokens": "many", "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 10, "completion_tokens": 10**9},
        {"prompt_tokens": 10, "completion_tokens": 0},
        {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 11}},
    ],
    ids=str,
)
def test_impossible_counts_are_noticed_and_replaced(usage: Any) -> None:
    made = judged(request(), "four", usage)
    assert made.notes == (verdict.WRONG_USAGE,)
    assert 1 <= made.n_in <= 100 and 1 <= made.n_out <= 8 and made.n_cached == 0


def test_missing_counts_are_counted_or_estimated() -> None:
    assert judged(request(), "four").notes == (verdict.NO_USAGE,)
    ids = (1, 2, 3)
    made = judged(request(token_ids=ids), "four", tokenizer=ToyTokenizer())
    assert (made.n_in, made.n_out) == (3, 4)


def test_prompts_that_an_endpoint_counts_otherwise_are_noticed() -> None:
    made = request(token_ids=tuple(range(1000)))
    usage = {"prompt_tokens": 1000, "completion_tokens": 1}
    sent = Call("completions", {}, n_ids=1000)
    assert judged(made, "x", usage, call=sent).notes == ()
    assert judged(made, "x", {**usage, "prompt_tokens": 1001}, call=sent).notes == (verdict.OTHER_LENGTH,)
    assert judged(made, "x", {**usage, "prompt_tokens": 1030}).notes == ()
    assert judged(made, "x", {**usage, "prompt_tokens": 1200}).notes == (verdict.OTHER_LENGTH,)
    assert judged(made, "x", {**usage, "prompt_tokens": 512}).notes == (verdict.FEWER,)
    long = request(segment("context", "word " * 10000), QUESTION)
    assert judged(long, "x", {**usage, "prompt_tokens": 512}).notes == (verdict.FEWER,)


def test_ends_are_read_as_they_are_said() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 1}
    assert judged(request(), "x", usage, finish_reason="length").finish == "length"
    assert judged(request(), "x", usage, finish_reason=None).notes == (verdict.UNSAID_END,)
    assert judged(request(), "x", usage, finish_reason="tool_calls").notes == (verdict.OTHER_END,)
    thought = judged(request(), "x", usage, reasoning="because")
    assert (thought.text, thought.reasoning) == ("x", "because")


# --- answers that are none --------------------------------------------------------------------------------------------


def chat_reply(message: dict[str, Any], finish: str = "stop") -> bytes:
    """A whole reply of the chat route."""
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]}).encode()


@pytest.mark.parametrize(
    "page",
    [b"<html>login</html>", b"  \n<!DOCTYPE html><html>", "\ufeff<!doctype HTML>".encode(), b"<?xml version='1'?>"],
)
def test_a_web_page_is_named_as_such(page: bytes) -> None:
    with pytest.raises(Broken, match="a web page"):
        whole(page)
    with pytest.raises(Broken, match="malformed JSON"):
        whole(b"<think> 42")


def test_a_refusal_is_noted_and_its_words_are_the_answer() -> None:
    reply = whole(chat_reply({"content": None, "refusal": "I cannot."}))
    found = response_of(request(), compose(request()), reply, TIMING, options=ApiOptions(), tokenizer=None)
    assert found.text == "I cannot." and verdict.REFUSED in found.notes
    plain = whole(chat_reply({"content": "42", "refusal": None}))
    found = response_of(request(), compose(request()), plain, TIMING, options=ApiOptions(), tokenizer=None)
    assert found.text == "42" and verdict.REFUSED not in found.notes
