"""`loom check` names the fault of broken metrics, servers and prompt methods: small ones, each with one fault."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
from loom_kit.conformance_metric import check_metric
from loom_kit.conformance_prompt import check_prompt_method
from loom_kit.conformance_server import check_server
from loom_kit.rows import Row

from loom_core.api import (
    Arm,
    AugmentationSpec,
    Kept,
    MetricSpec,
    ModelCard,
    NoOptions,
    Prompt,
    Request,
    Response,
    Rewritten,
    Sample,
    Scored,
    ServerSpec,
    Timing,
    digest,
    option,
    with_texts,
)

HUGE = 20_000


def faults(rows: Iterator[Row]) -> str:
    """The failed rows as `loom check` prints them."""
    return "\n".join(f"{row.check}: {row.why}" for row in rows if not row.passed)


# --- metrics ---------------------------------------------------------------------------------------------------------


class Exact:
    """No fault: the share of the first reference's words in the answer."""

    def score(self, prediction: str, sample: Sample) -> Any:
        words = str(sample.references[0]).split()
        return Scored(value=sum(word in prediction for word in words) / len(words))


class OutOfRange(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        return Scored(value=5.0)


class NotANumber(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        return Scored(value=float("nan"))


class Raises(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        raise KeyError("boo")


class Counts(Exact):
    calls = 0

    def score(self, prediction: str, sample: Sample) -> Any:
        Counts.calls += 1
        return Scored(value=float(Counts.calls % 2))


class RaisesForNothing(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        return Scored(value=float(prediction.split()[0] == str(sample.references[0]).split()[0]))


class Chance(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        return Scored(value=random.random())


class Alters(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        sample.meta["seen"] = prediction  # type: ignore[index]
        return super().score(prediction, sample)


class BareNumber(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        return 1.0


class NoReason(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        return Scored(value=None)


class UpsideDown(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        return Scored(value=1.0 - super().score(prediction, sample).value)


class Ascii(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        prediction.encode()  # a lone surrogate cannot be
        return super().score(prediction, sample)


class Endless(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        if len(prediction) >= HUGE:
            raise RecursionError("maximum recursion depth exceeded")
        return super().score(prediction, sample)


class Remembers(Exact):
    seen: dict[str, Any] = {}

    def score(self, prediction: str, sample: Sample) -> Any:
        return self.seen.setdefault(sample.id, super().score(prediction, sample))


class ScoresAllAlike(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        return Scored(value=1.0)


class TellsAnObject(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        return replace(super().score(prediction, sample), detail={"words": object()})


class Ends(Exact):
    def score(self, prediction: str, sample: Sample) -> Any:
        if not prediction:
            raise SystemExit(0)
        return super().score(prediction, sample)


METRIC_FAULTS: dict[type, str] = {
    Remembers: "all score alike",
    ScoresAllAlike: "all score alike",
    TellsAnObject: "a detail that is not JSON",
    Ends: "SystemExit: 0: a plugin may not end the program",
    OutOfRange: "outside the declared range",
    NotANumber: "is NaN",
    Raises: "raised KeyError: 'boo' for a right answer",
    Counts: "keep no state between calls",
    RaisesForNothing: "raised IndexError: list index out of range for an answer (empty)",
    Chance: "depends on what was scored before",
    Alters: "the sample (its references or meta) is changed",
    BareNumber: "returned a float, not a Scored",
    NoReason: "no value and no reason",
    UpsideDown: "which is better",
    Ascii: "raised UnicodeEncodeError",
    Endless: "RecursionError: maximum recursion depth exceeded for an answer (huge)",
}


def metric_spec() -> MetricSpec:
    return MetricSpec(name="mine", version="1", summary="x", factory="x:x")


@pytest.mark.parametrize("kind", METRIC_FAULTS, ids=lambda kind: kind.__name__)
def test_a_broken_metric_is_named(kind: type) -> None:
    assert METRIC_FAULTS[kind] in faults(check_metric(metric_spec(), kind, huge=HUGE))


def test_a_sound_metric_passes() -> None:
    rows = list(check_metric(metric_spec(), Exact, huge=HUGE))
    assert not faults(iter(rows)) and all(row.checked for row in rows)


# --- servers ---------------------------------------------------------------------------------------------------------


class Session:
    """No fault: echoes the question, word by word, within the limit."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def respond(self, request: Request, **changed: Any) -> Response:
        """A sound response, but for `changed`."""
        text = " ".join(request.prompt.text.split()[-request.generation.max_tokens :])[
            : request.generation.max_tokens * 6
        ]
        for stop in request.generation.stop:
            text = text.partition(stop)[0]
        now = time.perf_counter()
        timing = Timing(queued=now, started=now, first_token=None, ended=now)
        words = len(text.split())
        usual = {"key": request.key, "text": text, "finish": "stop", "n_in": 3, "n_out": words, "timing": timing}
        return Response(**{**usual, **changed})

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Any]:
        for request in requests:
            yield self.respond(request)


class Drops(Session):
    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Any]:
        for number, request in enumerate(requests):
            if number % 2:
                yield self.respond(request)


class ForeignKey(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        return super().respond(request, key="zzz")


class TooLong(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        return super().respond(request, text="x" * 5000, n_out=5000)


class TooLongAndSilent(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        return super().respond(request, text="x" * 5000, n_out=1)


class Crashes(Session):
    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Any]:
        raise RuntimeError("out of luck")
        yield


class Twice(Session):
    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Any]:
        for request in requests:
            yield self.respond(request)
            yield self.respond(request)


class NoStop(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        generation = replace(request.generation, stop=())
        return super().respond(replace(request, generation=generation))


class NoText(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        return super().respond(request, text=None)


class ErrorWithoutFinish(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        return super().respond(request, error="it broke")


class OtherFinish(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        return super().respond(request, finish="eos")


class NegativeCount(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        return super().respond(request, n_in=-1)


class CountsNothing(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        return super().respond(request, n_out=0)


class BackwardTimes(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        return super().respond(request, timing=Timing(queued=5.0, started=4.0, first_token=None, ended=3.0))


class MadeUpTimes(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        return super().respond(request, timing=Timing(queued=0.0, started=0.0, first_token=None, ended=1e6))


class ByPlace(Session):
    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Any]:
        for number, request in enumerate(requests):
            yield self.respond(request, text=f"answer{number}", n_out=1)


class FailsForOne(Session):
    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Any]:
        for request in requests:
            if not request.prompt.text:
                raise ValueError("empty prompt")
            yield self.respond(request)


class CountsMillions(Session):
    def respond(self, request: Request, **changed: Any) -> Response:
        return super().respond(request, n_in=10**7)


SERVER_FAULTS: dict[type[Session], str] = {
    CountsMillions: "n_in=10000000 for a prompt of at most",
    Drops: "requests have no answer",
    ForeignKey: "has a key that no request has ('zzz')",
    TooLong: "with max_tokens=8 has an answer of n_out=5000 tokens",
    TooLongAndSilent: "has an answer of 5000 characters",
    Crashes: "generate raised RuntimeError: out of luck",
    Twice: "answered more than once",
    NoStop: "is in the answer",
    NoText: "the text is None, not a string",
    ErrorWithoutFinish: "finish='stop' with error='it broke'",
    OtherFinish: "finish='eos'",
    NegativeCount: "n_in=-1",
    CountsNothing: "n_out=0 for an answer of",
    BackwardTimes: "are not in order",
    MadeUpTimes: "by its times",
    ByPlace: "greedy decoding answers",
    FailsForOne: "generate raised ValueError: empty prompt",
}


class Server:
    """A server of such sessions."""

    def __init__(self, kind: type[Session] = Session) -> None:
        self.kind = kind

    def describe(self, model: str, options: Any) -> ModelCard:
        return ModelCard(name=model, path=model, digest=digest(["f", model]), window=None, tokenizer=None)

    @contextmanager
    def open(self, model: str, options: Any) -> Iterator[Session]:
        yield self.kind(self.describe(model, options))


class OtherCards(Server):
    def describe(self, model: str, options: Any) -> ModelCard:
        return ModelCard(name=model, path=model, digest=str(time.time_ns()), window=None, tokenizer=None)


class Peeks(Server):
    def see_samples(self, samples: Any) -> None: ...


class LoadsEarly(Server):
    def describe(self, model: str, options: Any) -> ModelCard:
        import torch

        self.weights = torch.zeros(1 << 20)
        return super().describe(model, options)


def server_rows(server: Any) -> list[Row]:
    spec = ServerSpec(name="mine", version="1", summary="x", factory="x:x", capabilities=frozenset())
    return list(check_server(spec, server, "toy", NoOptions()))


@pytest.mark.parametrize("kind", SERVER_FAULTS, ids=lambda kind: kind.__name__)
def test_a_broken_session_is_named(kind: type[Session]) -> None:
    assert SERVER_FAULTS[kind] in faults(iter(server_rows(Server(kind))))


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (OtherCards(), "another describe gives another digest"),
        (Peeks(), 'see_samples is defined without the capability "references"'),
        (LoadsEarly(), "describe leaves tensors of"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_broken_server_is_named(server: Server, why: str) -> None:
    assert why in faults(iter(server_rows(server)))


def test_a_sound_server_passes() -> None:
    rows = server_rows(Server())
    assert not faults(iter(rows)) and all(row.checked for row in rows)


# --- prompt methods --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    k: int = option(2, low=1, help="sentences kept")


class Edges:
    """No fault: the first k lines of each context."""

    def __init__(self, options: Options) -> None:
        self.k = options.k

    def open(self, tokenizer: Any) -> Any:
        return nullcontext()

    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        return self.on(prompt, "context", lambda text: "\n".join(text.split("\n")[: self.k]))

    def on(self, prompt: Prompt, kind: str, change: Callable[[str], str]) -> Prompt:
        """The prompt with the texts of one kind changed."""
        texts = {i: change(s.text) for i, s in enumerate(prompt.segments) if s.kind == kind}
        return with_texts(prompt, texts)


class CutsQuestion(Edges):
    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        return self.on(prompt, "question", lambda text: text[:5])


class Leaks(Edges):
    calls = 0

    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        Leaks.calls += 1
        return self.on(prompt, "context", lambda text: text[Leaks.calls :])


class Draws(Edges):
    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        return self.on(prompt, "context", lambda text: text[random.randrange(1 + len(text)) :])


class NeedsText(Edges):
    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        return self.on(prompt, "context", lambda text: text.split()[0])


class NeedsTokenizer(Edges):
    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        return self.on(prompt, "context", lambda text: tokenizer.decode(tokenizer.encode(text)[:9]))


class DropsContext(Edges):
    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        return Prompt(segments=tuple(s for s in prompt.segments if s.kind != "context"))


class LooksAtQuestion(Edges):
    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        question = next(s.text for s in prompt.segments if s.kind == "question")
        return self.on(prompt, "context", lambda text: text if "orchard" in question else text[:10])


class WrongSpans(Edges):
    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        made = super().rewrite(prompt, tokenizer)
        spans = [Kept(segment=i, start=3, end=3 + len(s.text), at=0) for i, s in enumerate(made.segments)]
        return Rewritten(prompt=made, kept=tuple(spans))


class OneLine(Edges):
    """A retriever without fault: the first k pieces of 40 characters, apart from each other."""

    step = 1

    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        kept, texts, left = [], {}, self.pieces()
        for i, s in enumerate(prompt.segments):
            if s.kind != "context":
                continue
            places = range(0, len(s.text), 80)[:left][:: self.step]
            left -= len(places)
            spans = [(start, min(start + 40, len(s.text))) for start in places]
            texts[i] = "".join(s.text[start:end] for start, end in spans)
            at = 0
            for start, end in spans:
                kept.append(Kept(segment=i, start=start, end=end, at=at))
                at += end - start
        return Rewritten(prompt=with_texts(prompt, texts), kept=tuple(kept))

    def pieces(self) -> int:
        """How many pieces are kept."""
        return self.k


class OneMore(OneLine):
    def pieces(self) -> int:
        return self.k + 1


class Backwards(OneLine):
    step = -1


class AddsText(OneLine):
    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        made = super().rewrite(prompt, tokenizer)
        longer = self.on(made.prompt, "context", lambda text: text + " These are the passages that were found.")
        return replace(made, prompt=longer)


class ChangesRole(Edges):
    def rewrite(self, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
        return Prompt(segments=tuple(replace(s, role="system") if s.kind == "context" else s for s in prompt.segments))


PROMPT_FAULTS: dict[type[Edges], str] = {
    ChangesRole: "changes its kind, role or place",
    CutsQuestion: "changes more than the context (question)",
    Leaks: "state between prompts, or chance",
    Draws: "state between prompts, or chance",
    NeedsText: "raised IndexError: list index out of range for an empty context",
    NeedsTokenizer: "for a server that shows no tokenizer (tokenizer=None)",
    DropsContext: "1 context segments become 0",
    LooksAtQuestion: "query_aware=False is declared, but another question changes the context",
    WrongSpans: "the kept span [3, ",
    OneMore: "k=1 is asked for, and 2 separate pieces are kept",
    Backwards: "chunks are not in the order of the context",
    AddsText: "characters of the new context are not part of the old",
}


def prompt_rows(kind: type[Edges]) -> list[Row]:
    spec = AugmentationSpec(
        name="mine",
        version="1",
        summary="x",
        factory="x:x",
        kind="prompt",
        options=Options,
        retrieval=issubclass(kind, OneLine),
        query_aware=issubclass(kind, OneLine),
    )
    return list(check_prompt_method(spec, kind, huge=HUGE))


@pytest.mark.parametrize("kind", PROMPT_FAULTS, ids=lambda kind: kind.__name__)
def test_a_broken_prompt_method_is_named(kind: type[Edges]) -> None:
    assert PROMPT_FAULTS[kind] in faults(iter(prompt_rows(kind)))


@pytest.mark.parametrize("kind", [Edges, OneLine], ids=lambda kind: kind.__name__)
def test_a_sound_prompt_method_passes(kind: type[Edges]) -> None:
    assert not faults(iter(prompt_rows(kind)))
