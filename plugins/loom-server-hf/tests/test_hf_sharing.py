"""Shared prefixes and compressed contexts: equal to reading every prompt alone (U9), told apart, refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from loom_kv.testing import toy_model, toy_prompts
from loom_server_hf import sharing as sharing_module
from loom_server_hf.engine import Engine
from loom_server_hf.host import attached
from loom_server_hf.plugin import HFModelOptions, HFServerOptions
from loom_server_hf.prefix import behind, common
from loom_server_hf.server import HFServer
from loom_server_hf.shared import compress, read

from loom_core.api import Arm, Generation, Prompt, Request, Response, Segment, Span, installed, parse_arms

DENSE = Arm(name="dense")
CONTEXT = toy_prompts((150,), 400)[0]
QUESTIONS = [toy_prompts((n,), 400, seed=n)[0] for n in (5, 9, 30, 9, 17, 5, 2, 9, 11, 5)]


def request(number: int, ids: Sequence[int], *, group: str = "one", **changes: Any) -> Request:
    values: dict[str, Any] = {
        "key": str(number),
        "job": str(number),
        "step": 0,
        "prompt": Prompt(segments=(Segment(kind="question", text=""),)),
        "generation": Generation(max_tokens=6),
        "group": group,
        "seed": number,
        "token_ids": tuple(ids),
    }
    return Request(**{**values, **changes})


def asked(group: str = "one", context: tuple[int, ...] = CONTEXT, first: int = 0, **changes: Any) -> list[Request]:
    """Questions of many lengths on one context."""
    requests, end = [], len(context)
    for number, question in enumerate(QUESTIONS, first):
        spans = (
            Span(kind="context", start=0, end=end),
            Span(kind="question", start=end, end=end + len(question)),
        )
        requests.append(request(number, (*context, *question), group=group, **{"spans": spans, **changes}))
    return requests


def answers(folder: Path, requests: Sequence[Request], arm: Arm = DENSE, **options: Any) -> list[Response]:
    """The responses in the order of the requests; each request is answered exactly once."""
    server = HFServer(HFServerOptions(**options))
    with server.open(str(folder), HFModelOptions(device="cpu", dtype="float32")) as session:
        responses = list(session.generate(iter(requests), arm))
    assert sorted(r.key for r in responses) == sorted(r.key for r in requests)
    by_key = {response.key: response for response in responses}
    return [by_key[r.key] for r in requests]


def arm(text: str) -> Arm:
    """An arm as the command line gives it."""
    return next(arm for arm in parse_arms((text,), installed()) if arm.parts)


def said(responses: Sequence[Response]) -> list[Any]:
    """All that may not depend on sharing."""
    rows = []
    for response in responses:
        kv = None if response.kv is None else dataclasses.replace(response.kv, bytes_held=0)
        rows.append((response.key, response.text, response.token_ids, response.finish, response.n_in, kv))
    return rows


ARMS = ("random:budget=40", "snapkv:budget=40,window=8", "tova:budget=4x", "adakv:budget=40,window=8")


@pytest.mark.parametrize("text", ["dense", *ARMS])
@pytest.mark.parametrize("batch", [1, 4])
def test_answers_equal_those_of_prompts_read_alone(model_folder: Path, text: str, batch: int) -> None:
    chosen = DENSE if text == "dense" else arm(text)
    alone = answers(model_folder, asked(), chosen, batch=batch, share_prefix=False)
    shared = answers(model_folder, asked(), chosen, batch=batch)
    assert said(shared) == said(alone)
    assert all(not r.timing.forked and not r.n_cached and not r.timing.shared_seconds for r in alone)
    assert all(r.timing.forked and r.timing.shared_seconds > 0 for r in shared)
    assert all(len(CONTEXT) - 30 <= r.n_cached <= len(CONTEXT) for r in shared)


def test_a_prefix_is_read_once_for_its_group(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def counted(engine: Engine, ids: Sequence[int]) -> Any:
        lengths.append(len(ids))
        return read(engine, ids)

    monkeypatch.setattr(sharing_module, "read", counted)
    other = toy_prompts((170,), 400, seed=9)[0]
    single = [request(50, toy_prompts((90,), 400, seed=3)[0], group="single")]
    requests = [*asked(), *asked("two", other, 20), *single]
    for batch in (1, 3, 32):
        lengths.clear()
        responses = answers(model_folder, requests, batch=batch)
        assert lengths == [150, 170], f"batch {batch}"
        assert [r.timing.forked for r in responses] == [True] * 20 + [False]


def test_what_may_not_share_does_not(model_folder: Path) -> None:
    """Streamed prefills, and policies that look at every query; groups without a name; prefixes too short to matter."""
    expected = "adakv:budget=40,base=expected-attention,rule=kvpress"
    for text in ("streamingllm:form=streamed,budget=40", expected):
        assert not any(r.timing.forked for r in answers(model_folder, asked(), arm(text)))
    assert not any(r.timing.forked for r in answers(model_folder, asked("")))
    assert not any(r.timing.forked for r in answers(model_folder, asked(context=CONTEXT[:20])))


def test_equal_prompts_share_all_but_one_token(model_folder: Path) -> None:
    """Repeats of one question, and prompts of which one is the beginning of the other."""
    prompts = [CONTEXT, CONTEXT, CONTEXT[:120], CONTEXT[:60]]
    requests = [request(i, ids) for i, ids in enumerate(prompts)]
    shared = answers(model_folder, requests)
    assert said(shared) == said(answers(model_folder, requests, share_prefix=False))


@settings(max_examples=40, deadline=None)
@given(
    shared=st.integers(1, 60),
    tails=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    window=st.integers(0, 20),
    chunk=st.sampled_from([7, 4096]),
)
def test_any_prefix_gives_the_logits_of_whole_prompts(shared: int, tails: list[int], window: int, chunk: int) -> None:
    """Prompts shorter than what is read anew, tails of every length, windows across the border, chunks."""

    engine = ENGINE
    ids = toy_prompts((shared,), 256)[0]
    prompts = [(*ids, *toy_prompts((n,), 256, seed=i + 1)[0]) for i, n in enumerate(tails)]
    prefix = read(engine, ids)
    with attached(engine.model):
        whole, _ = engine.start(prompts, [0] * len(prompts), None).prefill()
        forked = engine.start(prompts, [0] * len(prompts), None, prefix=prefix, chunk=chunk)
        forked.session.window = window
        logits, _ = forked.prefill()
        token = torch.full((len(prompts), 1), 9)
        assert torch.allclose(logits, whole, atol=1e-4)
        assert forked.session.stores[0].positions().max() == max(map(len, prompts)) - 1
        forked.feed(token)


ENGINE = Engine(toy_model("llama"))


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), max_size=8))
def test_common(one: list[int], other: list[int]) -> None:
    n = common(tuple(one), tuple(other))
    assert one[:n] == other[:n]
    assert one[n : n + 1] != other[n : n + 1] or n == min(len(one), len(other))


def test_behind_covers_question_window_and_one_token() -> None:
    ids = tuple(range(50))
    assert behind([(*ids, 1, 2), (*ids, 3)], ids, 0) == 2
    assert behind([(*ids, 1, 2), (*ids, 3)], ids, 8) == 8
    assert behind([ids, ids], ids, 0) == 1
    assert behind([ids], ids, 100) == 50


# --- context-only --------------------------------------------------------------------------------------------------

CONTEXT_ONLY: dict[str, Any] = {"protocol": "context-only"}


CONTEXT_ONLY_ARMS = [*ARMS, "streamingllm:form=streamed,budget=40", "l2compress:budget=40,skip_layers=1"]


@pytest.mark.parametrize("text", CONTEXT_ONLY_ARMS)
def test_context_only_asks_copies_of_one_compressed_cache(model_folder: Path, text: str, of_the_day: Any) -> None:
    """Equal whatever the batch, and equal to compressing the context anew for each question."""
    of_the_day(text, CONTEXT_ONLY_ARMS, 2)
    alone = [answers(model_folder, [r], arm(text))[0] for r in asked(**CONTEXT_ONLY)]
    for batch in (1, 4):
        together = answers(model_folder, asked(**CONTEXT_ONLY), arm(text), batch=batch)
        assert said(together) == said(alone), f"batch {batch}"
    assert all(r.error is None and r.timing.forked and r.timing.shared_seconds > 0 for r in together)
    assert {r.n_cached for r in together} == {150}
    kv = together[0].kv
    assert kv is not None and kv.kept < 0.7 and any("context-only" in note for note in kv.notes)


def test_context_only_compresses_before_the_question_is_seen(model_folder: Path) -> None:
    """The kept slots are those of the context alone; the dense answer is that of a whole prompt."""
    dense = answers(model_folder, asked(**CONTEXT_ONLY))
    assert [r.token_ids for r in dense] == [r.token_ids for r in answers(model_folder, asked())]
    aware = answers(model_folder, asked(), arm("snapkv:budget=40,window=8"))
    only = answers(model_folder, asked(**CONTEXT_ONLY), arm("snapkv:budget=40,window=8"))
    assert [r.token_ids for r in aware] != [r.token_ids for r in only]


def test_context_only_compresses_each_context_once(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def counted(engine: Engine, ids: Sequence[int], policy: Any, seed: int) -> Any:
        lengths.append(len(ids))
        return compress(engine, ids, policy, seed)

    monkeypatch.setattr(sharing_module, "compress", counted)
    other = toy_prompts((170,), 400, seed=9)[0]
    requests = [*asked(**CONTEXT_ONLY), *asked("two", other, 20, **CONTEXT_ONLY)]
    answers(model_folder, requests, arm("snapkv:budget=40,window=8"), batch=3)
    assert lengths == [150, 170]


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        ((Span(kind="question", start=0, end=5), Span(kind="context", start=5, end=150)), "before the context"),
        ((Span(kind="question", start=0, end=155),), "no context"),
        ((Span(kind="context", start=0, end=155),), "nothing is asked"),
    ],
)
def test_context_only_refuses_by_name(model_folder: Path, spans: tuple[Span, ...], says: str) -> None:
    requests = asked(spans=spans, **CONTEXT_ONLY)[:1]
    (response,) = answers(model_folder, requests, arm("snapkv:budget=40,window=8"))
    assert response.finish == "error" and says in (response.error or "")


def test_context_only_budgets_are_of_the_context(model_folder: Path) -> None:
    """A ratio is of the context; a budget that the context fits says so; one too small fails its questions only."""
    quarter = answers(model_folder, asked(**CONTEXT_ONLY), arm("tova:budget=4x"))[0]
    assert quarter.kv is not None and quarter.kv.kept == pytest.approx(37 / 150)
    large = answers(model_folder, asked(**CONTEXT_ONLY), arm("tova:budget=500"))[0]
    assert large.kv is not None and any("dense" in note for note in large.kv.notes)
    small = answers(model_folder, asked(**CONTEXT_ONLY), arm("snapkv:budget=8x,window=32"))
    assert all(r.finish == "error" and "too small" in (r.error or "") for r in small)


def test_memory_that_runs_out_while_a_prefix_is_read(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sharing_module, "read", fails)
    monkeypatch.setattr(sharing_module, "compress", fails)
    assert said(answers(model_folder, asked())) == said(answers(model_folder, asked(), share_prefix=False))
    responses = answers(model_folder, asked(**CONTEXT_ONLY))
    assert all("out of memory" in (r.error or "") for r in responses)
