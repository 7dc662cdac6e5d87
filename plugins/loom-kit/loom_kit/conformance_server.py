"""What every server must fulfil, whoever wrote it: each request answered once, within its limits, the same each time.

A server is opened on a model and asked a few short questions. One that cannot be opened here is not checked, and says
why. Knows the contract of servers; knows no server.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from loom_core.contract.errors import LoomError
from loom_core.contract.prompt import segment
from loom_core.contract.protocols import ModelCard, Session
from loom_core.contract.specs import ServerSpec
from loom_core.contract.types import Arm, Generation, Prompt, Request, Response
from loom_core.prompting.render import render
from loom_kit.rows import NotChecked, Row, attempt, reason

DENSE = Arm(name="dense")
LIMITS = (8, 1, 5, 8, 8)
"""max_tokens of the questions, in their order."""
WEIGHTS_BYTES = 1 << 20
"""Tensors that `describe` may leave behind: a card is not a model."""
TEMPLATE = 1000
"""Tokens that a server may add to a prompt, at most."""
LETTERS = 40
"""Characters that one token may stand for, at most, where a server's count is doubted."""


@dataclass
class Opened:
    """A server's session on a model, and the questions it is asked."""

    spec: ServerSpec
    session: Session
    card: ModelCard
    requests: Sequence[Request] = field(init=False)

    def __post_init__(self) -> None:
        self.requests = [self.request(str(number), text, limit) for number, (text, limit) in enumerate(_questions())]

    def request(self, key: str, text: str, limit: int, **limits: Any) -> Request:
        """A request of its own key; rendered where the server shows its tokenizer."""
        context = f"Note {key}. The lighthouse of Skerry opens on Mondays. " * (1 + int(key[:1] == "2") * 20)
        prompt = Prompt(segments=(segment("context", context), segment("question", text)))
        rendered = render(prompt, self.card.tokenizer, chat="completion") if self.card.tokenizer else None
        return Request(
            key=f"key-{key}",
            job=f"job-{key}",
            step=0,
            prompt=prompt,
            generation=Generation(max_tokens=limit, **limits),
            group=prompt.context_digest,
            seed=7,
            chat="completion",
            token_ids=rendered.token_ids if rendered else None,
            spans=rendered.spans if rendered else (),
        )

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        """Everything that comes back; raises AssertionError where the server raises."""
        try:
            return list(self.session.generate(iter(requests), DENSE))
        except Exception as error:
            raise AssertionError(
                f"generate raised {reason(error)}: a request that fails is a Response with finish='error' and error "
                "set; raising loses the session and every other request"
            ) from error

    def by_key(self, requests: Sequence[Request]) -> Mapping[str, Response]:
        """The answers by key."""
        return {response.key: response for response in self.ask(requests)}


def _questions() -> Iterator[tuple[str, int]]:
    texts = ("\nWhen does it open?", "\nx", "\nWhat opens on Mondays, and where?", "\n¿Cuándo? いつ？", "\nWhen?")
    return zip(texts, LIMITS, strict=True)


def check_server(
    spec: ServerSpec, server: Any, model: str, options: Any, *, given: bool = False, unit: str = ""
) -> Iterator[Row]:
    """One row a rule. server: built with its options. model, options: what it is opened on. given: the user named the
    model, so one that cannot be opened is a failure. unit: added to the subject of each row.
    """
    name = spec.name + (f" ({unit})" if unit else "")
    if "given_answers" in spec.capabilities:
        yield Row(name, "answers requests", True, "it asks nobody: its answers are read from a file", checked=False)
        return
    if "references" not in spec.capabilities:
        yield attempt(name, "asks for no references", partial(_blind, server))
    try:
        before = _tensor_bytes()
        card = server.describe(model, options)
        left = _tensor_bytes() - before
    except Exception as error:  # noqa: BLE001 - whatever a server raises is its result
        yield _not_opened(name, "describe", error, given)
        return
    yield attempt(name, "describe gives a card", partial(_card, card, lambda: server.describe(model, options)))
    yield attempt(name, "describe loads no weights", partial(_light, left))
    try:
        manager = server.open(model, options)
        session = manager.__enter__()
    except Exception as error:  # noqa: BLE001 - as above
        yield _not_opened(name, "open", error, given)
        return
    try:
        yield from _rows(name, Opened(spec, session, session.card))
    finally:
        manager.__exit__(None, None, None)


def _not_opened(name: str, step: str, error: Exception, given: bool) -> Row:
    absent = isinstance(error, (LoomError, ImportError)) and not given
    why = f"{step}: {reason(error)}" + (f" (loom check {name} --model MODEL)" if absent else "")
    return Row(name, "opens a model", absent, why, checked=not absent)


def _rows(name: str, opened: Opened) -> Iterator[Row]:
    started = time.perf_counter()
    try:
        responses = opened.ask(opened.requests)
    except AssertionError as error:
        yield Row(name, "answers requests", False, str(error))
        return
    seconds = time.perf_counter() - started
    checks: dict[str, Callable[[], None]] = {
        "answers each request once": partial(_complete, opened.requests, responses),
        "answers are whole records": partial(_records, responses),
        "keeps to max_tokens": partial(_limits, opened, responses),
        "counts tokens rightly": partial(_counts, opened, responses),
        "times are in order": partial(_times, responses, seconds),
    }
    broken = False
    for check, trial in checks.items():
        row = attempt(name, check, trial)
        broken = broken or not row.passed
        yield row
    if broken:
        yield Row(name, "order, stop strings, failures", True, "not before the above is mended", checked=False)
        return
    yield attempt(name, "answers do not depend on batch and order", partial(_same, opened, responses))
    yield attempt(name, "stops at a stop string", partial(_stops, opened, responses))
    yield attempt(name, "a hopeless request fails alone", partial(_alone, opened, responses))


def _blind(server: Any) -> None:
    for thing in (server, type(server)):
        assert not hasattr(thing, "see_samples"), 'see_samples is defined without the capability "references"'


def _card(card: Any, again: Callable[[], Any]) -> None:
    assert isinstance(card, ModelCard), f"describe returned a {type(card).__name__}, not a ModelCard"
    assert card.name and card.digest, "the card has no name or no digest: runs could not be distinguished"
    assert card.window is None or card.window > 0, f"the window is {card.window} tokens; None = unknown"
    assert again().digest == card.digest, "another describe gives another digest: no run could be continued"
    if (tokenizer := card.tokenizer) is not None:
        text = "Opens on Mondays, at 7."
        ids, spans = tokenizer.offsets(text)
        assert list(ids) == list(tokenizer.encode(text)), "tokenizer: offsets() gives other ids than encode()"
        assert len(ids) == len(spans), "tokenizer: offsets() gives not one span an id"
        assert all(0 <= a <= b <= len(text) for a, b in spans), "tokenizer: a span lies outside the text"


def _tensor_bytes() -> int:
    """Bytes of all torch tensors alive in this process; 0 where torch is not imported."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return 0
    gc.collect()
    alive = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return sum(tensor.nelement() * tensor.element_size() for tensor in alive if tensor.device.type != "meta")


def _light(left: int) -> None:
    assert left <= WEIGHTS_BYTES, f"describe leaves tensors of {left:,} bytes: planning would load the model"


def _complete(requests: Sequence[Request], responses: Sequence[Response]) -> None:
    asked, answered = [request.key for request in requests], [response.key for response in responses]
    foreign = sorted(set(answered) - set(asked))
    assert not foreign, f"an answer has a key that no request has ({foreign[0]!r}): Response.key is the request's key"
    missing = [key for key in asked if key not in answered]
    assert not missing, (
        f"{len(missing)} of {len(asked)} requests have no answer: every request gets a Response, one that fails with "
        "finish='error'"
    )
    twice = sorted({key for key in answered if answered.count(key) > 1})
    assert not twice, f"{len(twice)} of {len(asked)} requests are answered more than once"


def _records(responses: Sequence[Response]) -> None:
    for response in responses:
        assert isinstance(response, Response), f"yielded a {type(response).__name__}, not a Response"
        assert isinstance(response.text, str), f"the text is {response.text!r}, not a string: nothing said is ''"
        assert response.finish in ("stop", "length", "error"), f"finish={response.finish!r}: stop, length or error"
        failed = response.finish == "error"
        assert failed == bool(response.error), f"finish={response.finish!r} with error={response.error!r}"
        assert isinstance(response.notes, tuple), "notes is not a tuple"
    failed_all = [response.error for response in responses if response.error]
    if responses and len(failed_all) == len(responses):
        raise NotChecked(f"every request failed: {str(failed_all[0])[:200]}")


def _answered(opened: Opened, responses: Sequence[Response]) -> list[tuple[Request, Response]]:
    requests = {request.key: request for request in opened.requests}
    pairs = [(requests[r.key], r) for r in responses if r.key in requests and r.finish != "error"]
    if not pairs:
        raise NotChecked("no request has an answer")
    return pairs


def _limits(opened: Opened, responses: Sequence[Response]) -> None:
    for request, response in _answered(opened, responses):
        most = request.generation.max_tokens
        too_long = f"a request with max_tokens={most} has an answer of"
        assert response.n_out <= most, f"{too_long} n_out={response.n_out} tokens: pass the limit on, or cut"
        length = len(response.text) + len(response.reasoning or "")
        assert length <= LETTERS * most, f"{too_long} {length} characters, too many for {most} tokens"
        assert response.finish != "length" or response.n_out > 0, "finish='length' with n_out=0"


def _counts(opened: Opened, responses: Sequence[Response]) -> None:
    for request, response in _answered(opened, responses):
        for what in ("n_in", "n_out", "n_cached", "n_dropped"):
            count = getattr(response, what)
            whole = isinstance(count, int) and count >= 0
            assert whole, f"{what}={count!r}: a number of tokens, 0 or more"
        if request.token_ids is not None and "token_ids" in opened.spec.capabilities:
            asked = len(request.token_ids)
            assert response.n_in == asked, f"n_in={response.n_in} for a prompt of {asked} token_ids"
        most = len(request.prompt.text.encode("utf-8", "replace")) + TEMPLATE
        assert response.n_in <= most, f"n_in={response.n_in} for a prompt of at most {most} tokens, one a byte"
        assert response.n_cached <= max(response.n_in, 1), f"n_cached={response.n_cached} of n_in={response.n_in}"
        if response.token_ids is not None:
            made = len(response.token_ids)
            assert 0 <= response.n_out - made <= 1, f"n_out={response.n_out} for an answer of {made} token_ids"
        words = response.text.split()
        assert not words or response.n_out > 0, f"n_out=0 for an answer of {len(words)} words"
        for what in ("cost", "peak_bytes", "n_reasoning"):
            number = getattr(response, what)
            assert number is None or number >= 0, f"{what}={number!r}: 0 or more, None where it is not measured"


def _times(responses: Sequence[Response], seconds: float) -> None:
    for response in responses:
        timing = response.timing
        marks = [timing.queued, timing.started, timing.first_token, timing.ended]
        known = [mark for mark in marks if mark is not None]
        assert all(math.isfinite(mark) for mark in known), f"a time is not finite: {known}"
        order = "queued, started, first_token, ended are not in order"
        assert known == sorted(known), f"{order}: {', '.join(f'{mark - known[0]:.6g}' for mark in known)} s"
        took = timing.ended - timing.started
        assert took <= seconds + 1, (
            f"an answer took {took:.3g} s by its times, all of them {seconds:.3g} s by the clock"
        )
        assert timing.batch >= 1 and timing.shared_seconds >= 0, "batch is below 1, or shared_seconds below 0"


def _same(opened: Opened, responses: Sequence[Response]) -> None:
    first = {response.key: response.text for response in responses if response.finish != "error"}
    turned = opened.by_key(list(reversed(opened.requests)))
    alone: dict[str, Response] = {}
    for request in opened.requests:
        alone |= opened.by_key([request])
    for key, text in first.items():
        for how, other in (("in another order", turned), ("alone", alone)):
            assert key in other, f"a request asked again {how} has no answer"
            again = other[key].text
            assert again == text, f"asked {how}, greedy decoding answers {again[:40]!r}, not {text[:40]!r}"


def _stops(opened: Opened, responses: Sequence[Response]) -> None:
    for request, response in _answered(opened, responses):
        stop = response.text.strip()[1:].strip()[:2]
        if len(stop) < 2 or response.text.find(stop) < 1:
            continue
        generation = replace(request.generation, stop=(stop,))
        again = opened.ask([replace(request, key="key-stop", generation=generation)])
        assert again and isinstance(again[0].text, str), "a request with a stop string has no answer"
        if again[0].finish == "error":
            raise NotChecked(f"a request with a stop string failed: {again[0].error}")
        assert stop not in again[0].text, f"stop={stop!r} was asked for, and is in the answer {again[0].text[:60]!r}"
        return
    raise NotChecked("the answers are too short to hold a stop string")


def _alone(opened: Opened, responses: Sequence[Response]) -> None:
    """A request that nobody can answer sensibly (an empty prompt) may fail, but not take others with it."""
    empty = Prompt(segments=(segment("question", ""),))
    ids = () if opened.card.tokenizer is not None else None
    hopeless = replace(opened.requests[0], key="key-empty", job="job-empty", prompt=empty, token_ids=ids, spans=())
    given = opened.ask([hopeless, *opened.requests])
    _complete([hopeless, *opened.requests], given)
    texts = {response.key: response.text for response in given}
    for response in responses:
        same = response.finish == "error" or texts[response.key] == response.text
        assert same, "beside a request with an empty prompt, others are answered differently"
