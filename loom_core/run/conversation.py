"""A job as a deterministic generator of calls, and the loop that drives many of them through one session.

Prompt augmentation → truncation → rendering → call, for each turn; recorded calls are replayed instead of asked again.
Knows contracts, no process, no store and no model.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

from loom_core.contract import border
from loom_core.contract.errors import LoomError, ModelError, PluginError
from loom_core.contract.evidence import kept_ends
from loom_core.contract.guard import each, guarded, reason
from loom_core.contract.keys import call_key, digest, plain, prompt_digest, seed_of
from loom_core.contract.protocols import (
    MOST_CALLS,
    Benchmark,
    PromptAugmentation,
    Rendered,
    SeesReferences,
    Session,
    Strategy,
    Tokenizer,
)
from loom_core.contract.shapes import shown
from loom_core.contract.types import Arm, Json, KVUse, Part, Prompt, Request, Response, Sample, Task, Timing, Turn
from loom_core.prompting.render import render
from loom_core.prompting.rewriting import Rewriting, evidence_left, rewrite
from loom_core.prompting.thinking import asked, declared
from loom_core.prompting.truncate import fit
from loom_core.run.selection import Selection
from loom_core.run.store import sample_from

RENDERINGS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """A turn made ready: the final prompt, its rendering (None where the server renders), and what was done to it."""

    prompt: Prompt
    rendered: Rendered | None
    rewriting: Rewriting


@dataclass
class Step:
    """A job in flight: its generator, the call that is open, and what is needed to record it.

    answered: one response for each turn of the benchmark that is over; the generator appends to it.
    """

    job: Mapping[str, Json]
    sample: Sample
    task: Task
    turns: Generator[Turn, Response, str]
    replay: dict[int, Mapping[str, Json]]
    turn: Turn
    number: int = 0
    request: Request | None = None
    prepared: Prepared | None = None
    prepared_seconds: float = 0.0
    answered: list[Response] = field(default_factory=list)


def converse(
    benchmark: Benchmark, sample: Sample, task: Task, strategies: Iterable[Strategy], answered: list[Response]
) -> Generator[Turn, Response, str]:
    """The turns of a job. Each turn of the benchmark may be solved by a strategy in several calls.

    answered: empty; one response is appended for each turn that is over, with the strategy's answer as its text.
    """
    strategy = next(iter(strategies), None)
    turn: Turn | None = Turn(prompt=sample.prompt, generation=task.generation)
    while turn is not None:
        if strategy is None:
            response = yield turn
        else:
            last: list[Response] = []
            answer = yield from _remember(strategy.solve(turn), last)
            if not last:
                raise PluginError(f"{type(strategy).__name__} answered without asking the model")
            response = replace(last[-1], text=answer)
        answered.append(response)
        turn = benchmark.follow_up(sample, answered)
    return answered[-1].text


def _remember(turns: Generator[Turn, Response, str], seen: list[Response]) -> Generator[Turn, Response, str]:
    try:
        turn = next(turns)
        while True:
            seen.append((yield turn))
            turn = turns.send(seen[-1])
    except StopIteration as end:
        if not isinstance(end.value, str):
            raise PluginError(f"a strategy returned {shown(end.value)}, not an answer") from None
        return end.value


class Conversations:
    """Drives jobs through a session; opened once, it holds the arms' prompt augmentations open."""

    def __init__(self, selection: Selection, session: Session) -> None:
        self._selection, self._session = selection, session
        self._thinking = declared(selection.config.thinking, selection.config.thinking_budget)
        self._stack = ExitStack()
        self._augmentations: dict[str, Any] = {}
        self._unopened: dict[str, LoomError] = {}
        self._rendered: OrderedDict[tuple[str, str], Prepared] = OrderedDict()

    def __enter__(self) -> Conversations:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, arm: Arm, jobs: Iterable[Json], stopping: threading.Event) -> Iterator[dict[str, Json]]:
        """Records of the calls of these jobs, as they finish. Stops between calls once `stopping` is set."""
        waiting: list[Step] = []
        server = self._selection.server.spec.name
        for job in jobs:
            yield from self._start(arm, job, waiting)
        if "references" in self._selection.server.spec.capabilities:
            cast(SeesReferences, self._session).see_samples({step.job["key"]: step.sample for step in waiting})
        while waiting and not stopping.is_set():
            open_ = {step.request.key: step for step in waiting if step.request is not None}
            waiting = []
            requests = iter([step.request for step in open_.values() if step.request is not None])
            for given in self._given(requests, arm):
                step = open_.pop(border.request_of(given, server, open_))
                response = border.answered(given, server, step.sample.id)
                yield from self._advance(arm, step, response, waiting)
                if stopping.is_set():
                    return
            for step in open_.values():
                yield self._failure(step, "the server gave no answer to this request")

    def _given(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """What the session gives; what it raises means that it is lost."""
        owner = f"server {self._selection.server.spec.name}"
        with guarded(owner, "generate()"):
            answers = self._session.generate(requests, arm)
        return each(answers, owner, "generate()")

    def _start(self, arm: Arm, order: Json, waiting: list[Step]) -> Iterator[dict[str, Json]]:
        job, sample = order["job"], sample_from(order["sample"])
        chosen, task = self._selection.task(job["task"])
        strategies = (self._augmentation(part) for part in arm.of_kind("strategy"))
        answered: list[Response] = []
        turns = converse(chosen.benchmark, sample, task, strategies, answered)
        replay = {record["step"]: record for record in order["replay"]}
        first = Turn(prompt=sample.prompt, generation=task.generation)
        step = Step(job, sample, task, turns, replay, first, answered=answered)
        try:
            with guarded(f"arm {arm.name}"):
                step.turn = border.turn(next(turns), f"arm {arm.name}")
        except LoomError as error:  # what a plugin raises over one job is that job's recorded error
            yield self._failure(step, reason(error))
            return
        yield from self._prepare(arm, step, waiting)

    def _prepare(self, arm: Arm, step: Step, waiting: list[Step]) -> Iterator[dict[str, Json]]:
        """Make the request of the open turn, or replay its recorded response; what fails is recorded."""
        began = time.perf_counter()
        thinking, limits = self._thinking, step.turn.generation
        # A task's own limits were given room to think when it was chosen; those of other turns are given it here.
        if thinking is not None and limits != step.task.generation:
            step.turn = replace(step.turn, generation=thinking.limits(limits))
        try:
            if step.number >= MOST_CALLS:
                raise PluginError("a job may not make more calls", why=f"the limit is {MOST_CALLS}")
            with guarded(f"arm {arm.name}"):
                step.request, step.prepared = self._request(arm, step)
        except LoomError as error:  # as above
            step.request, step.prepared = None, None
            yield self._failure(step, reason(error))
            return
        step.prepared_seconds = time.perf_counter() - began
        recorded = step.replay.get(step.number)
        if recorded is not None and recorded["key"] == step.request.key and recorded["finish"] != "error":
            yield from self._advance(arm, step, response_from(recorded), waiting, replayed=True)
        else:
            waiting.append(step)

    def _advance(
        self, arm: Arm, step: Step, response: Response, waiting: list[Step], *, replayed: bool = False
    ) -> Iterator[dict[str, Json]]:
        """Hand a response to its job; record it, and prepare the job's next turn if it has one."""
        answer, turn, broken, number = None, None, "", len(step.answered)
        if self._thinking is not None and not replayed:
            tokenizer = self._session.card.tokenizer
            count = (lambda text: len(tokenizer.encode(text))) if tokenizer is not None else None
            response = self._thinking.split(response, step.turn.generation, count)
        if response.finish != "error":
            try:
                with guarded(f"arm {arm.name}"), suppress(StopIteration):
                    turn = border.turn(step.turns.send(response), f"arm {arm.name}")
            except LoomError as error:  # as above
                turn, broken = None, reason(error)
            if len(step.answered) > number:
                answer = step.answered[number].text
        if not replayed:
            yield self._record(step, response, number, last=turn is None and not broken, answer=answer)
        if broken:
            step.number, step.request, step.prepared = step.number + 1, None, None
            yield self._failure(step, broken)
        if turn is not None:
            step.turn, step.number = turn, step.number + 1
            yield from self._prepare(arm, step, waiting)

    def _request(self, arm: Arm, step: Step) -> tuple[Request, Prepared]:
        turn, task, job = step.turn, step.task, str(step.job["key"])
        prepared = self._render(arm, turn, task)
        prompt, rendered = prepared.prompt, prepared.rendered
        seen: Json = (
            list(rendered.token_ids or ())
            if rendered
            else [[s.role, s.text, *(["apart"] if s.apart else [])] for s in prompt.segments]
        )
        return (
            Request(
                key=call_key(job, step.number, seen, turn.generation),
                job=job,
                step=step.number,
                prompt=prompt,
                generation=turn.generation if self._thinking is None else asked(turn.generation),
                group=prompt.context_digest,
                seed=seed_of(f"{job}:{step.number}:{turn.generation.seed}"),
                chat=task.chat,
                token_ids=rendered.token_ids if rendered else None,
                spans=rendered.spans if rendered else (),
                n_dropped=rendered.n_dropped if rendered else 0,
                protocol=self._selection.config.protocol,
                marks=() if self._thinking is None else (self._thinking.begin, self._thinking.end),
            ),
            prepared,
        )

    def _render(self, arm: Arm, turn: Turn, task: Task) -> Prepared:
        """Augment, truncate and render a prompt; kept for the arms that ask the same prompt next."""
        rewriting = "+".join(part.text for part in arm.of_kind("prompt")) if turn.augment else ""
        place = (prompt_digest(turn.prompt), f"{rewriting} {turn.generation.max_tokens} {task.chat} {task.truncation}")
        if place not in self._rendered:
            self._rendered[place] = self._render_anew(arm, turn, task)
            if len(self._rendered) > RENDERINGS_KEPT:
                self._rendered.popitem(last=False)
        return self._rendered[place]

    def _render_anew(self, arm: Arm, turn: Turn, task: Task) -> Prepared:
        """The arm's prompt augmentations, which see the full context; then truncation; then rendering."""
        tokenizer = self._session.card.tokenizer
        parts = [(p.name, self._augmentation(p)) for p in arm.of_kind("prompt")] if turn.augment else []
        rewriting = rewrite(parts, turn.prompt, tokenizer, task.chat, where=f"arm {arm.name}")
        if tokenizer is None:
            return Prepared(rewriting.prompt, None, rewriting)
        new, window, policy = turn.generation.max_tokens, self._session.card.window, self._selection.config.overlength
        final, rendered = fitted(rewriting.prompt, new, task, tokenizer, window, policy)
        rendered = replace(rendered, n_dropped=rendered.n_dropped + rewriting.dropped)
        return Prepared(final, rendered, rewriting)

    def _augmentation(self, part: Part) -> Any:
        """The opened prompt augmentation or strategy of a part; opened on first use, closed with the worker."""
        if part.text in self._unopened:
            raise self._unopened[part.text]
        if part.text not in self._augmentations:
            made = self._selection.catalog.make(self._selection.catalog.augmentations.get(part.name), part.options)
            try:
                with guarded(f"augmentation {part.name}", "open()"):
                    if part.kind == "prompt":
                        augmentation: PromptAugmentation = made
                        self._stack.enter_context(augmentation.open(self._session.card.tokenizer))
                    elif opened := getattr(made, "open", None):
                        self._stack.enter_context(opened(self._session.card))
            except LoomError as error:
                # What cannot be opened is not tried again for each question: a model is looked for once.
                self._unopened[part.text] = error
                raise
            self._augmentations[part.text] = made
        return self._augmentations[part.text]

    def _record(self, step: Step, response: Response, turn: int, *, last: bool, answer: str | None) -> dict[str, Json]:
        """The record of a call. turn: of the benchmark, which the call belongs to; answer: what ended it, if it did."""
        rendered = step.prepared.rendered if step.prepared else None
        return {
            "job": step.job["key"],
            "step": step.number,
            "turn": turn,
            "last": last,
            "sample": step.sample.id,
            "task": step.job["task"],
            "arm": step.job["arm"],
            "repeat": step.job["repeat"],
            "protocol": self._selection.config.protocol,
            "prompt_digest": digest(list(rendered.token_ids)) if rendered and rendered.token_ids else None,
            "bos": rendered.bos if rendered else None,
            "cut": list(rendered.cut) if rendered else [],
            "answer": answer if answer is not None and answer != response.text else None,
            "prepared_seconds": round(step.prepared_seconds, 6),
            **_rewriting(step),
            **plain(response),
        }

    def _failure(self, step: Step, why: str) -> dict[str, Json]:
        now = time.perf_counter()
        key = step.request.key if step.request else call_key(str(step.job["key"]), step.number, None, None)
        timing = Timing(queued=now, started=now, first_token=None, ended=now)
        response = Response(key=key, text="", finish="error", n_in=0, n_out=0, timing=timing, error=why)
        return self._record(step, response, len(step.answered), last=True, answer=None)


def fitted(
    prompt: Prompt, n_new: int, task: Task, tokenizer: Tokenizer, window: int | None, policy: str
) -> tuple[Prompt, Rendered]:
    """The rendered prompt as it is asked, cut where the task's own rule or the policy for long prompts says so.

    n_new: tokens of the answer. Raises ModelError where it does not fit the window and may not be cut.
    """
    rendered = render(prompt, tokenizer, chat=task.chat)
    limit = _count(rendered) if window is None else window - n_new
    too_long = _count(rendered) > limit
    own_rule = task.truncation.scope == "prompt" or (too_long and task.truncation.scope == "document")
    if own_rule or (too_long and policy == "truncate"):
        return fit(prompt, tokenizer, chat=task.chat, truncation=task.truncation, limit=limit)
    if too_long:
        raise ModelError(
            "the prompt is longer than the model's window",
            why=f"{_count(rendered)} tokens + {n_new} new > {window}",
            hint="--overlength truncate",
        )
    return prompt, rendered


def _rewriting(step: Step) -> dict[str, Json]:
    """What prompt augmentations and truncation did to the prompt of a call, and to the sample's evidence in it."""
    if step.prepared is None:
        return {"rewriting": None, "rewriting_cost": None, "evidence": None}
    rewriting, final = step.prepared.rewriting, step.prepared.prompt
    cut = () if final is rewriting.prompt else (kept_ends(rewriting.prompt, final),)
    left = evidence_left(step.sample, step.turn.prompt, rewriting.kept, cut)
    return {"rewriting": rewriting.facts, "rewriting_cost": rewriting.cost, "evidence": left}


def _count(rendered: Rendered) -> int:
    return len(rendered.token_ids or ())


def response_from(record: Mapping[str, Json]) -> Response:
    """The response that a record holds."""
    fields = {name: record[name] for name in Response.__dataclass_fields__ if name in record}
    fields["notes"] = tuple(fields.get("notes", ()))
    fields["timing"] = Timing(**fields["timing"])
    if (use := fields.get("kv")) is not None:
        fields["kv"] = KVUse(**{**use, "notes": tuple(use.get("notes", ()))})
    if fields.get("token_ids") is not None:
        fields["token_ids"] = tuple(fields["token_ids"])
    return Response(**fields)
