"""One opened model: requests in, responses out, each as soon as its row ends. Knows batches and stop strings.

Requests are taken `batch` at a time and put together with others of like length. When memory runs out, the rows that
are not answered yet are asked again in half as large a batch, and no later batch is as large in tokens. What several
prompts begin with is read once (`sharing`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

from loom_kv import Picker, compose

from loom_core.api import Arm, ModelCard, ModelError, Part, Request, Response, Timing, Tokenizer, installed
from loom_core.api.serving import failure, misfit, render, said, stop_ids
from loom_server_hf.engine import Engine, Row, RowResult
from loom_server_hf.memory import out_of_memory, release_memory
from loom_server_hf.picking import PickingEngine
from loom_server_hf.prefix import Prefix
from loom_server_hf.recurrent import StateEngine
from loom_server_hf.shared import Context, ask
from loom_server_hf.sharing import Sharing, Unit
from loom_server_hf.taken import Taken

Answers: TypeAlias = Engine | StateEngine | PickingEngine
"""What runs batches."""
SLACK_TOKENS = 4
"""Tokens decoded before the first that a stop string can begin in: a decoder may trim the first one's space."""


class StopStrings:
    """Asked after each token whether the text now holds a stop string; decodes only as many tokens as that takes."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        # A token gives at least one byte of text, so a stop string of n bytes lies within the last n tokens.
        self._tail = max(len(text.encode("utf-8", "surrogatepass")) for text in stop) + SLACK_TOKENS

    def __call__(self, ids: Sequence[int]) -> bool:
        """True if the generation `ids` must end here."""
        tail = self._tokenizer.decode(ids[-self._tail :])
        return any(text in tail for text in self._stop)


class HFSession:
    """Answers requests with one engine. `card.tokenizer` decodes; `eos_ids` end an answer.

    share_prefix: read what several prompts begin with once.
    """

    def __init__(
        self,
        engine: Engine | StateEngine,
        card: ModelCard,
        *,
        eos_ids: frozenset[int],
        batch: int = 8,
        share_prefix: bool = True,
    ) -> None:
        if card.tokenizer is None:
            raise ModelError(f"{card.name} has no tokenizer", where=card.path)
        self.card = card
        self._engine: Engine | StateEngine | None = engine
        self._share_prefix = share_prefix
        self._tokenizer, self._eos_ids, self._batch = card.tokenizer, eos_ids, batch
        self._most_tokens: int | None = None

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """Answer the requests, each response as soon as it is finished; the order within a batch is not kept.

        A request that cannot be answered is a response with `error` set. Raises ModelError where the arm cannot run.
        """
        if self._engine is None:
            raise ModelError(f"the session of {self.card.name} is closed", hint="open the model again")
        policy, picker = load_policy(arm), load_picker(arm)
        state = self._engine if isinstance(self._engine, StateEngine) else None
        if state is not None and (policy is not None or picker is not None):
            raise state.refusal(f"arm {arm.name}")
        engine: Answers = self._engine
        if picker is not None and isinstance(engine, Engine):
            engine = PickingEngine(engine, picker)
        on = self._share_prefix and state is None and picker is None
        sharing = Sharing(self._engine, policy, declared=declares_sharing(arm), on=on)
        requests, ahead = iter(requests), list[Request]()
        while taken := [*ahead, *islice(requests, self._batch - len(ahead))]:
            ahead = list(islice(requests, 1)) if sharing.looks_ahead(taken[-1]) else []
            fitting = []
            for request in taken:
                item, why = self._take(request)
                if state is not None and request.protocol == "context-only":
                    why = str(state.refusal("the protocol context-only"))
                if picker is not None and request.protocol == "context-only":
                    why = f"{picker.name} picks tokens with the question in view: it cannot be asked context-only"
                if why:
                    yield _failure(item, why)
                else:
                    fitting.append(item)
            for unit in sharing.units(fitting, ahead[0] if ahead else None):
                yield from self._answer(engine, unit, policy)

    def close(self) -> None:
        """Let go of the model and give its memory back."""
        self._engine = None
        release_memory()

    def _take(self, request: Request) -> tuple[Taken, str]:
        """The request with its token ids, and why it cannot be answered ("" where it can)."""
        ids = request.token_ids
        if ids is None:
            ids = render(request.prompt, self._tokenizer, chat=request.chat).token_ids or ()
        item = Taken(request, tuple(ids), time.perf_counter())
        return item, misfit(len(ids), request.generation, self.card.window)

    def _answer(self, engine: Answers, unit: Unit, policy: Any) -> Iterator[Response]:
        """Run a unit, longest first; after running out of memory, what is left of it in smaller batches."""
        waiting = list(unit.items) if not unit.why else []
        for item in unit.items if unit.why else ():
            yield _failure(item, unit.why)
        while waiting:
            batch, memory = waiting[: self._rows_that_fit(waiting[0])], ""
            waiting = waiting[len(batch) :]
            left = dict(enumerate(batch))
            try:
                for index, result in _run(engine, [self._row(item) for item in batch], policy, unit):
                    yield self._response(left.pop(index), result, len(batch), unit)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                memory = str(error).strip().partition("\n")[0] or type(error).__name__
            if not memory:
                for item in left.values():
                    yield _failure(item, "the engine ended without a result for this request")
                continue
            # Outside the handler: its traceback holds the frames, and with them the tensors.
            release_memory()
            if len(batch) == 1:
                for item in left.values():
                    yield _failure(item, f"out of memory with this request alone ({len(item.ids)} tokens): {memory}")
            else:
                self._most_tokens = len(batch) * batch[0].n_tokens // 2
                waiting = [*left.values(), *waiting]

    def _rows_that_fit(self, longest: Taken) -> int:
        """How many rows as long as this one make a batch that has not run out of memory yet; at least one."""
        if self._most_tokens is None:
            return self._batch
        return max(1, min(self._batch, self._most_tokens // longest.n_tokens))

    def _row(self, item: Taken) -> Row:
        generation = item.request.generation
        stop = StopStrings(self._tokenizer, generation.stop) if generation.stop else None
        return Row(
            ids=item.ids,
            max_tokens=generation.max_tokens,
            min_tokens=generation.min_tokens,
            stop_ids=stop_ids(self._tokenizer, generation),
            temperature=generation.temperature,
            top_p=generation.top_p,
            seed=item.request.seed,
            eos_ids=self._eos_ids,
            stop=stop,
        )

    def _response(self, item: Taken, result: RowResult, batch: int, unit: Unit) -> Response:
        ids = tuple(result.token_ids)
        if result.error is not None:
            return _failure(item, result.error)
        return Response(
            key=item.request.key,
            text=self._text(item, ids),
            finish=result.finish,
            n_in=len(item.ids),
            n_out=len(ids),
            timing=Timing(
                queued=item.queued,
                started=result.started,
                first_token=result.first_token,
                ended=result.ended,
                batch=batch,
                forked=unit.shared is not None,
                shared_seconds=unit.shared.seconds if unit.shared is not None else 0.0,
            ),
            token_ids=ids,
            n_cached=result.n_cached,
            n_dropped=item.request.n_dropped,
            kv=result.kv,
            peak_bytes=result.peak_bytes,
        )

    def _text(self, item: Taken, ids: tuple[int, ...]) -> str:
        """The answer without its end token and without what a stop string cuts off."""
        kept = ids[:-1] if ids and ids[-1] in self._eos_ids else ids
        return said(self._tokenizer, kept, item.request)


def _run(engine: Answers, rows: Sequence[Row], policy: Any, unit: Unit) -> Iterator[tuple[int, RowResult]]:
    """The rows of a unit through the engine, behind what they share."""
    if isinstance(unit.shared, Context) and isinstance(engine, Engine):
        return ask(engine, unit.shared, rows)
    if isinstance(unit.shared, Prefix):
        return engine.run(rows, policy, unit.shared)
    return engine.run(rows, policy)


def declares_sharing(arm: Arm) -> bool:
    """True if every cache method of the arm declares that questions may continue one prefix."""
    augmentations = installed().augmentations
    return all(augmentations.get(part.name).spec.shares_prefix for part in arm.of_kind("model"))


def load_policy(arm: Arm) -> Any:
    """The cache method of an arm, its parts composed; None for a dense cache.

    Raises ModelError, which names the rule, for parts that cannot be stacked.
    """
    augmentations = installed().augmentations
    parts: tuple[Part, ...] = arm.of_kind("model")
    factories = [installed().load(augmentations.get(part.name)) for part in parts]
    made = [factory(part.options) for factory, part in zip(factories, parts, strict=True)]
    return compose([part for part in made if not isinstance(part, Picker)])


def load_picker(arm: Arm) -> Picker | None:
    """The method of an arm that picks prompt tokens before the model reads; None without one.

    Raises ModelError where there are two.
    """
    augmentations, found = installed().augmentations, list[Picker]()
    for part in arm.of_kind("model"):
        made = installed().load(augmentations.get(part.name))(part.options)
        if isinstance(made, Picker):
            found.append(made)
    if len(found) > 1:
        names = " and ".join(picker.name for picker in found)
        raise ModelError(f"{names} cannot be stacked", why="each decides alone which tokens the model reads")
    return found[0] if found else None


def _failure(item: Taken, why: str) -> Response:
    return failure(item.request, why, n_in=len(item.ids), queued=item.queued)
