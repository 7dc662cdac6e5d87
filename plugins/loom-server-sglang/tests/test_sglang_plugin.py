"""The sglang server without SGLang: arguments, and its session over an engine made for the test."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from loom_server_sglang.server import SglangServer
from loom_server_sglang.session import SglangSession

from loom_core.api import Arm, Generation, ModelCard, ModelError, Prompt, Request, UsageError, installed, segment
from loom_core.api.serving import EngineModelOptions, EngineOptions, engines

DENSE = Arm(name="dense")


@pytest.fixture(scope="module")
def card() -> ModelCard:
    """The card of the embedded model."""
    if "loom-tiny" not in installed().models or "hf" not in installed().servers:
        pytest.skip("needs loom-model-tiny and loom-server-hf")
    model = str(installed().load(installed().models.get("loom-tiny"))())
    return SglangServer(EngineOptions()).describe(model, EngineModelOptions(window=64))


@dataclass
class Engine:
    """Streams two pieces an answer, as SGLang does: each holds all tokens so far. Fails on prompts from 13 on."""

    end: dict[str, Any] = field(default_factory=lambda: {"type": "length", "length": 3})
    asked: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    most: int = 0
    closed: bool = False
    loop: Any = field(default_factory=asyncio.new_event_loop)

    async def async_generate(self, **given: Any) -> AsyncIterator[dict[str, Any]]:
        self.asked.append(given)
        if given["input_ids"][0] == 13:
            raise ValueError("an unlucky number")
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[dict[str, Any]]:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        yield {"output_ids": [5], "meta_info": {"finish_reason": None}}
        await asyncio.sleep(0)
        self.running -= 1
        facts = {"finish_reason": self.end, "completion_tokens": 3, "cached_tokens": 2}
        yield {"output_ids": [5, 6, 7], "meta_info": facts}

    def shutdown(self) -> None:
        self.closed = True
        self.loop.close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    if not made.closed:
        made.shutdown()


def request(number: int, ids: tuple[int, ...] = (1, 2, 3), **limits: Any) -> Request:
    name, prompt = str(number), Prompt(segments=(segment("question", "?"),))
    generation = Generation(max_tokens=3, **limits)
    return Request(key=name, job=name, step=0, prompt=prompt, generation=generation, group="g", seed=-1, token_ids=ids)


def session(engine: Engine, card: ModelCard, **options: Any) -> SglangSession:
    return SglangSession(engine, card, EngineOptions(**options), lora=False, version="0")


def test_every_request_is_answered_and_the_engine_is_kept_full(engine: Engine, card: ModelCard) -> None:
    responses = list(session(engine, card, max_batch=2).generate(iter([request(n) for n in range(9)]), DENSE))
    assert sorted(int(r.key) for r in responses) == list(range(9))
    assert engine.most == 4 and {(r.n_in, r.n_out, r.n_cached) for r in responses} == {(3, 3, 2)}
    assert all(r.timing.queued <= (r.timing.first_token or 0) <= r.timing.ended for r in responses)


def test_errors_are_recorded_for_their_own_request(engine: Engine, card: ModelCard) -> None:
    rows = [request(0, (13,)), request(1), request(2, tuple(range(1, 63)))]
    responses = {r.key: r for r in session(engine, card).generate(iter(rows), DENSE)}
    assert responses["0"].error == "SGLang: ValueError: an unlucky number"
    assert responses["1"].error is None and "does not fit the window" in str(responses["2"].error)


@pytest.mark.parametrize(
    ("end", "ids", "finish"),
    [({"type": "stop", "matched": 7}, [5, 6], "stop"), ({"type": "stop", "matched": "zz"}, [5, 6, 7], "stop")],
)
def test_the_end_token_is_no_text(
    engine: Engine, card: ModelCard, end: dict[str, Any], ids: list[int], finish: str
) -> None:
    engine.end = end
    (response,) = session(engine, card).generate(iter([request(0)]), DENSE)
    assert card.tokenizer is not None
    assert (response.text, response.finish) == (card.tokenizer.decode(ids), finish)


def test_an_aborted_request_is_an_error(engine: Engine, card: ModelCard) -> None:
    engine.end = {"type": "abort", "message": "out of slots"}
    (response,) = session(engine, card).generate(iter([request(0)]), DENSE)
    assert response.error == "SGLang gave the request up: out of slots"


def test_an_engine_stops_at_every_end_of_the_model(engine: Engine, card: ModelCard) -> None:
    other = replace(card, facts={**card.facts, "end_ids": [2, 6, 99]})
    list(session(engine, other).generate(iter([request(1)]), DENSE))
    assert engine.asked[0]["sampling_params"]["stop_token_ids"] == [2, 6, 99]


def test_limits_are_sent_by_their_names(engine: Engine, card: ModelCard) -> None:
    rows = [request(0), request(1, temperature=0.5, stop=("x",), min_tokens=2)]
    list(session(engine, card).generate(iter(rows), DENSE))
    greedy, drawn = (given["sampling_params"] for given in engine.asked)
    assert greedy["temperature"] == 0.0 and "sampling_seed" not in greedy and "stop" not in greedy
    assert drawn["sampling_seed"] == 0x7FFFFFFF and drawn["stop"] == ["x"] and drawn["min_new_tokens"] == 2


def test_an_abandoned_run_leaves_nothing_flying(engine: Engine, card: ModelCard) -> None:
    opened = session(engine, card, max_batch=2)
    answers = opened.generate(iter([request(n) for n in range(9)]), DENSE)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert not asyncio.all_tasks(engine.loop)
    opened.close()
    assert engine.closed


def test_arguments(card: ModelCard) -> None:
    options = EngineOptions(tensor_parallel=2, prefix_caching=False, engine='{"page_size": 16}')
    given = SglangServer(options).arguments(card, EngineModelOptions(window=64))
    assert given["tp_size"] == 2 and given["disable_radix_cache"] and given["page_size"] == 16
    assert given["dtype"] == "float32" and given["context_length"] == 64
    with pytest.raises(UsageError, match="tensor_parallel"):
        SglangServer(EngineOptions(engine='{"tp_size": 2}'))


def test_without_sglang_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sglang", None)
    with pytest.raises(ModelError, match="--python PATH"):
        engines.package("sglang", "SGLang", "loom-server-sglang")


def test_an_engine_that_does_not_start_is_told_in_its_own_words() -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no GPU\nnone at all")

    with pytest.raises(ModelError) as caught:
        engines.start(refuse, {}, name="SGLang", model="tiny")
    assert "no GPU | none at all" in str(caught.value)
