"""The session with a scripted engine: batches, stop strings, failures, memory; nothing is lost or answered twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from loom_server_hf.engine import Row, RowResult, _Answer
from loom_server_hf.session import HFSession, StopStrings, load_policy
from loom_server_hf.taken import buckets
from loom_server_hf.tokenizer import HFTokenizer
from transformers import PreTrainedTokenizerFast

from loom_core.api import (
    Arm,
    Generation,
    KVUse,
    ModelCard,
    ModelError,
    Part,
    Prompt,
    Request,
    Response,
    Segment,
    UsageError,
    installed,
    parse_arms,
)
from loom_core.api.serving import first_stop, stop_ids

EOS = 2
DENSE = Arm(name="dense")
USE = KVUse(bytes_dense=10, bytes_held=10, kept=1.0, saves="none")
New = Callable[..., PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def tokenizer(new_tokenizer: New) -> HFTokenizer:
    return HFTokenizer(new_tokenizer())


class Scripted:
    """Says the same ids to every row, one token at a time, as the engine would; fails where it is told to."""

    def __init__(self, says: Sequence[int], fails: Callable[[Sequence[Row]], Exception | None] | None = None) -> None:
        self.says, self.fails = list(says), fails
        self.batches: list[list[int]] = []

    def run(self, rows: Sequence[Row], policy: Any) -> Iterator[tuple[int, RowResult]]:
        self.batches.append([len(row.ids) for row in rows])
        error = self.fails(rows) if self.fails else None
        for index, row in reversed(list(enumerate(rows))):
            if error is not None and index == 0:
                raise error
            yield index, self._result(row)

    def _result(self, row: Row) -> RowResult:
        said: list[int] = []
        finish: Any = "length"
        for token in self.says[: row.max_tokens]:
            said.append(token)
            stopped = row.stop is not None and len(said) >= row.min_tokens and row.stop(said)
            if stopped or token in row.eos_ids:
                finish = "stop"
                break
        now = time.perf_counter()
        times: Any = {"started": now, "first_token": now, "ended": now}
        return RowResult(token_ids=tuple(said), finish=finish, kv=USE, peak_bytes=7, **times)


def request(key: str, n: int = 5, **generation: Any) -> Request:
    return Request(
        key=key,
        job=key,
        step=0,
        prompt=Prompt(segments=(Segment(kind="question", text="x"),)),
        generation=Generation(**{"max_tokens": 50, **generation}),
        group="",
        seed=0,
        token_ids=(1,) * n,
        n_dropped=3,
    )


def session(tokenizer: HFTokenizer, engine: Any, *, batch: int = 4, window: int | None = 1000) -> HFSession:
    card = ModelCard(name="m", path="/m", digest="", window=window, tokenizer=tokenizer)
    return HFSession(engine, card, eos_ids=frozenset({EOS}), batch=batch)


def ask(opened: HFSession, requests: Sequence[Request], arm: Arm = DENSE) -> dict[str, Response]:
    """The responses by key; each request is answered exactly once."""
    responses = list(opened.generate(iter(requests), arm))
    assert sorted(r.key for r in responses) == sorted(r.key for r in requests)
    return {r.key: r for r in responses}


# --- text ----------------------------------------------------------------------------------------------------------


def test_an_answer_is_recorded_whole(tokenizer: HFTokenizer) -> None:
    says = [*tokenizer.encode(" The fox."), EOS, 7, 7]
    response = ask(session(tokenizer, Scripted(says)), [request("a")])["a"]
    assert response.text == " The fox."
    assert response.finish == "stop"
    assert response.token_ids == tuple(says[:-2])
    assert (response.n_in, response.n_out, response.n_dropped) == (5, len(says) - 2, 3)
    assert response.kv == USE
    assert response.peak_bytes == 7
    assert response.timing.queued <= response.timing.started <= response.timing.ended
    assert response.error is None


def test_an_end_token_that_is_no_special_token_is_left_out(tokenizer: HFTokenizer) -> None:
    end = tokenizer.encode("!")[0]
    card = ModelCard(name="m", path="/m", digest="", window=None, tokenizer=tokenizer)
    engine: Any = Scripted([*tokenizer.encode("yes"), end])
    opened = HFSession(engine, card, eos_ids=frozenset({end}))
    assert ask(opened, [request("a")])["a"].text == "yes"


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="ab .\nä日", min_size=1, max_size=40),
    stop=st.lists(st.text(alphabet="ab .\nä日", min_size=1, max_size=5), min_size=1, max_size=3),
)
def test_stop_strings_cut_where_they_begin(tokenizer: HFTokenizer, text: str, stop: list[str]) -> None:
    """However tokens and stop strings overlap: the answer ends with the token that completes the first of them."""
    says = [*tokenizer.encode(text), EOS]
    response = ask(session(tokenizer, Scripted(says)), [request("a", max_tokens=200, stop=tuple(stop))])["a"]
    heads = [tokenizer.decode(says[:n]) for n in range(1, len(says))]
    first = next((n for n, head in enumerate(heads, 1) if any(item in head for item in stop)), None)
    assert response.finish == "stop"
    if first is None:
        assert response.text == text
        assert response.n_out == len(says)
    else:
        said = heads[first - 1]
        assert response.text == said[: min(said.find(item) for item in stop if item in said)]
        assert response.n_out == first


def test_a_stop_string_that_straddles_tokens(tokenizer: HFTokenizer) -> None:
    says = tokenizer.encode("one###two")
    assert len(tokenizer.encode("e###t")) > 2
    response = ask(session(tokenizer, Scripted(says)), [request("a", stop=("e###t",))])["a"]
    assert response.text == "on"


def test_stop_strings_decode_a_tail_only(tokenizer: HFTokenizer) -> None:
    lengths: list[int] = []

    class Counting:
        def decode(self, ids: Sequence[int]) -> str:
            lengths.append(len(ids))
            return tokenizer.decode(ids)

    stop = StopStrings(Counting(), ["END"])  # type: ignore[arg-type]
    assert not stop(tokenizer.encode("word " * 500))
    assert max(lengths) < 10


def test_nothing_before_min_tokens_stops_or_is_cut(tokenizer: HFTokenizer) -> None:
    says = tokenizer.encode("a.b.c.d")
    response = ask(session(tokenizer, Scripted(says)), [request("a", stop=(".",), min_tokens=5)])["a"]
    assert response.text == "a.b.c"


def test_a_stop_that_is_a_token_is_no_first_token(tokenizer: HFTokenizer) -> None:
    """LongBench's samsum: the line feed ends an answer, and may not begin one."""
    (line_feed,) = tokenizer.encode("\n")
    generation = request("a", stop=("\n", "a longer one"), min_tokens=1).generation
    assert stop_ids(tokenizer, generation) == {line_feed}
    assert stop_ids(tokenizer, request("a", stop=("\n",)).generation) == frozenset()
    asked = _Answer(Row(ids=(1,), max_tokens=3, seed=0, eos_ids=frozenset({2}), min_tokens=1, stop_ids=frozenset({9})))
    assert asked.banned == {2, 9}
    asked.add(5)
    assert asked.banned == frozenset()


def test_first_stop() -> None:
    assert first_stop("abcabc", ["c"]) == (2, 1)
    assert first_stop("abcabc", ["c"], 3) == (5, 1)
    assert first_stop("abcabc", ["ca", "b"], 0) == (1, 1)
    assert first_stop("abc", ["x"]) is None


def test_a_request_without_ids_is_rendered(tokenizer: HFTokenizer) -> None:
    response = ask(session(tokenizer, Scripted([EOS])), [replace(request("a"), token_ids=None)])["a"]
    assert response.n_in == 2  # BOS and the question


# --- batches -------------------------------------------------------------------------------------------------------


def test_requests_are_taken_lazily(tokenizer: HFTokenizer) -> None:
    taken: list[int] = []

    def source() -> Iterator[Request]:
        for i in range(10):
            taken.append(i)
            yield request(str(i))

    responses = session(tokenizer, Scripted([EOS]), batch=4).generate(source(), DENSE)
    assert taken == []
    next(responses)
    assert taken == [0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 900), min_size=1, max_size=20), batch=st.integers(1, 6))
def test_batches_hold_requests_of_like_length(tokenizer: HFTokenizer, lengths: list[int], batch: int) -> None:
    engine = Scripted([EOS])
    responses = ask(session(tokenizer, engine, batch=batch), [request(str(i), n=n) for i, n in enumerate(lengths)])
    assert all(responses[str(i)].n_in == n for i, n in enumerate(lengths))
    assert all(len(b) <= batch and max(b) <= 1.5 * min(b) for b in engine.batches)
    assert all(r.timing.batch in {len(b) for b in engine.batches} for r in responses.values())


def test_buckets_are_empty_for_nothing() -> None:
    assert buckets([]) == []


# --- failures ------------------------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_window_says_the_arithmetic(tokenizer: HFTokenizer) -> None:
    opened = session(tokenizer, Scripted([EOS]), window=60)
    responses = ask(opened, [request("long", n=20), request("fits", n=10)])
    assert responses["long"].finish == "error"
    assert "20 tokens + 50 new = 70 > 60" in (responses["long"].error or "")
    assert responses["fits"].finish == "stop"


@pytest.mark.parametrize(("changes", "word"), [({"n": 0}, "empty"), ({"max_tokens": 0}, "max_tokens=0")])
def test_a_request_that_cannot_be_answered(tokenizer: HFTokenizer, changes: dict[str, Any], word: str) -> None:
    responses = ask(session(tokenizer, Scripted([EOS])), [request("bad", **changes), request("good")])
    assert word in (responses["bad"].error or "")
    assert responses["good"].error is None


def test_a_row_that_fails_is_one_error(tokenizer: HFTokenizer) -> None:
    class OneBad(Scripted):
        def _result(self, row: Row) -> RowResult:
            result = super()._result(row)
            return replace(result, error="the budget is too small") if len(row.ids) == 6 else result

    responses = ask(session(tokenizer, OneBad([EOS])), [request("bad", n=6), request("good", n=5)])
    assert responses["bad"].finish == "error"
    assert responses["bad"].error == "the budget is too small"
    assert responses["good"].finish == "stop"


def test_a_row_that_the_engine_forgets_is_an_error(tokenizer: HFTokenizer) -> None:
    class Forgets(Scripted):
        def run(self, rows: Sequence[Row], policy: Any) -> Iterator[tuple[int, RowResult]]:
            yield 0, self._result(rows[0])

    responses = ask(session(tokenizer, Forgets([EOS])), [request("a"), request("b")])
    assert sorted(r.finish for r in responses.values()) == ["error", "stop"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_memory_running_out_makes_batches_smaller(tokenizer: HFTokenizer, error: Exception) -> None:
    engine = Scripted([EOS], fails=lambda rows: error if len(rows) > 2 else None)
    responses = ask(session(tokenizer, engine, batch=8), [request(str(i)) for i in range(16)])
    assert all(r.finish == "stop" for r in responses.values())
    # 8 fail with 7 answered; the one that is left is asked alone, and no later batch is so large.
    assert [len(b) for b in engine.batches][:2] == [8, 1]
    assert max(len(b) for b in engine.batches[2:]) <= 4


def test_short_requests_stay_together_after_memory_ran_out(tokenizer: HFTokenizer) -> None:
    def fails(rows: Sequence[Row]) -> Exception | None:
        return MemoryError() if sum(len(row.ids) + row.max_tokens for row in rows) > 2000 else None

    engine = Scripted([EOS], fails=fails)
    long = [request(f"long{i}", n=900) for i in range(4)]
    short = [request(f"short{i}", n=10) for i in range(8)]
    responses = ask(session(tokenizer, engine, batch=4), [*long, *short])
    assert all(r.finish == "stop" for r in responses.values())
    assert [len(b) for b in engine.batches if max(b) == 10] == [4, 4]


def test_a_request_that_is_too_large_alone_is_an_error(tokenizer: HFTokenizer) -> None:
    engine = Scripted([EOS], fails=lambda rows: MemoryError() if any(len(r.ids) == 9 for r in rows) else None)
    responses = ask(session(tokenizer, engine), [request("big", n=9), *(request(str(i), n=8) for i in range(7))])
    assert "out of memory with this request alone (9 tokens)" in (responses["big"].error or "")
    assert all(r.finish == "stop" for key, r in responses.items() if key != "big")


@pytest.mark.parametrize("error", [RuntimeError("device-side assert"), ValueError("x"), ModelError("x")])
def test_a_broken_model_raises(tokenizer: HFTokenizer, error: Exception) -> None:
    with pytest.raises(type(error)):
        ask(session(tokenizer, Scripted([EOS], fails=lambda rows: error)), [request("a")])


# --- arms ----------------------------------------------------------------------------------------------------------


def part(name: str, kind: Any = "model") -> Part:
    return Part(name=name, version="1", kind=kind, options=None, text=name)


def test_two_methods_at_once_are_refused(tokenizer: HFTokenizer) -> None:
    one, other = (parse_arms([f"random:budget={n}"], installed())[-1] for n in (8, 9))
    arm = Arm(name="both", parts=(*one.parts, *other.parts))
    with pytest.raises(ModelError, match="random and random") as caught:
        ask(session(tokenizer, Scripted([EOS])), [request("x")], arm)
    assert "one selecting method" in caught.value.where
    assert caught.value.hint


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="no-such-method"):
        load_policy(Arm(name="x", parts=(part("no-such-method"),)))


def test_parts_of_other_kinds_are_not_the_sessions() -> None:
    assert load_policy(Arm(name="x", parts=(part("bm25", "prompt"), part("route", "strategy")))) is None
