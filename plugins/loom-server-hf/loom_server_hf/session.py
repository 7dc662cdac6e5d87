"""One opened model: requests in, responses out, each as soon as its row ends. Knows batches and stop strings.

Requests are taken `batch` at a time and put together with others of like length. When memory runs out, the rows that
are not answered yet are asked again in half as large a batch, and no later batch is as large in tokens.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch

from loom_core.answering import failure, misfit, said
from loom_core.contracts import ModelCard, Tokenizer
from loom_core.errors import ModelError
from loom_core.plugins import installed
from loom_core.render import render
from loom_core.types import Arm, Part, Request, Response, Timing
from loom_server_hf.engine import Row, RowResult

SPREAD = 1.5
"""In one batch, the longest prompt has at most this many times the tokens of the shortest, so padding stays small."""

SLACK_TOKENS = 4
"""Tokens decoded before the first that a stop string can begin in: a decoder may trim the first one's space."""


class Runs(Protocol):
    """What a session needs of the engine."""

    def run(self, rows: Sequence[Row], policy: Any) -> Iterator[tuple[int, RowResult]]:
        """Answer the rows; yields each row's index and result when it ends."""


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


@dataclass(frozen=True, slots=True)
class Taken:
    """A request in hand, its token ids, and when it was taken from the queue."""

    request: Request
    ids: tuple[int, ...]
    queued: float

    @property
    def n_tokens(self) -> int:
        """Prompt and answer together, at most."""
        return len(self.ids) + self.request.generation.max_tokens


class HFSession:
    """Answers requests with one engine. `card.tokenizer` decodes; `eos_ids` end an answer."""

    def __init__(self, engine: Runs, card: ModelCard, *, eos_ids: frozenset[int], batch: int = 8) -> None:
        if card.tokenizer is None:
            raise ModelError(f"{card.name} has no tokenizer", where=card.path)
        self.card = card
        self._engine: Runs | None = engine
        self._tokenizer, self._eos_ids, self._batch = card.tokenizer, eos_ids, batch
        self._most_tokens: int | None = None

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """Answer the requests, each response as soon as it is finished; the order within a batch is not kept.

        A request that cannot be answered is a response with `error` set. Raises ModelError where the arm cannot run.
        """
        if self._engine is None:
            raise ModelError(f"the session of {self.card.name} is closed", hint="open the model again")
        policy = load_policy(arm)
        while taken := list(islice(requests, self._batch)):
            fitting = []
            for request in taken:
                item, why = self._take(request)
                if why:
                    yield _failure(item, why)
                else:
                    fitting.append(item)
            for bucket in buckets(fitting):
                yield from self._answer(self._engine, bucket, policy)

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

    def _answer(self, engine: Runs, taken: Sequence[Taken], policy: Any) -> Iterator[Response]:
        """Run a bucket, longest first; after running out of memory, what is left of it in smaller batches."""
        waiting = list(taken)
        while waiting:
            batch, memory = waiting[: self._rows_that_fit(waiting[0])], ""
            waiting = waiting[len(batch) :]
            left = dict(enumerate(batch))
            try:
                for index, result in engine.run([self._row(item) for item in batch], policy):
                    yield self._response(left.pop(index), result, len(batch))
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
            temperature=generation.temperature,
            top_p=generation.top_p,
            seed=item.request.seed,
            eos_ids=self._eos_ids,
            stop=stop,
        )

    def _response(self, item: Taken, result: RowResult, batch: int) -> Response:
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
            ),
            token_ids=ids,
            n_dropped=item.request.n_dropped,
            kv=result.kv,
            peak_bytes=result.peak_bytes,
        )

    def _text(self, item: Taken, ids: tuple[int, ...]) -> str:
        """The answer without its end token and without what a stop string cuts off."""
        kept = ids[:-1] if ids and ids[-1] in self._eos_ids else ids
        return said(self._tokenizer, kept, item.request.generation)


def load_policy(arm: Arm) -> Any:
    """The cache policy of an arm; None for a dense cache.

    Raises ModelError for two methods at once, which nothing here can compose.
    """
    parts: tuple[Part, ...] = arm.of_kind("model")
    if len(parts) > 1:
        raise ModelError(
            f"the arm {arm.name} asks for two cache methods at once: " + " and ".join(part.name for part in parts),
            why="each decides alone what the cache keeps",
            hint="give them as two arms",
        )
    if not parts:
        return None
    catalog, part = installed(), parts[0]
    return catalog.load(catalog.augmentations.get(part.name))(part.options)


def buckets(taken: Sequence[Taken]) -> list[list[Taken]]:
    """The requests sorted by length, longest first, cut where the next would be padded too much."""
    groups: list[list[Taken]] = []
    for item in sorted(taken, key=lambda item: -len(item.ids)):
        if groups and len(groups[-1][0].ids) <= SPREAD * len(item.ids):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def out_of_memory(error: BaseException) -> bool:
    """True for the errors with which torch says that memory ran out, on a GPU or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)


def release_memory() -> None:
    """Give back what is no longer referred to."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _failure(item: Taken, why: str) -> Response:
    return failure(item.request, why, n_in=len(item.ids), queued=item.queued)
