"""Prefill and decode of one batch on one loaded model. Knows token ids; nothing of text, requests or arms.

The dense baseline runs through the same loop and the same preallocated store as every method.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from loom_kv import Geometry, Policy, Rope, Session
from torch import Tensor

from loom_core.api import KVUse, LoomError, UsageError
from loom_server_hf.examine import Examined, examine, examine_rope
from loom_server_hf.host import Layers, PassThrough, attached, forward
from loom_server_hf.memory import PeakMemory
from loom_server_hf.prefix import Prefix
from loom_server_hf.sampling import Sampler

STREAM_CHUNK = 512
"""Most tokens of a streamed prefill's chunk: its attention is a band of chunk x (budget + chunk)."""
ROOM = 128
"""Most tokens that a storage grows by at a time while decoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt of a batch. seed: of draws by sampling and by methods. stop: asked after each token, with all
    generated ids, whether the answer is complete (stop strings). stop_ids: the tokens that are a stop string each."""

    ids: tuple[int, ...]
    max_tokens: int
    seed: int
    eos_ids: frozenset[int]
    min_tokens: int = 0
    stop_ids: frozenset[int] = frozenset()
    temperature: float = 0.0
    top_p: float = 1.0
    stop: Callable[[Sequence[int]], bool] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """The answer to a row. token_ids includes the end-of-sequence token where one was generated.

    started, first_token, ended: `time.perf_counter` seconds; started is the batch's. kv: measured at the end of the
    prompt, after compression. peak_bytes: most memory during the batch (see `memory`). n_cached: prompt tokens that
    were read before, for all who share them. error: why there is no answer.
    """

    token_ids: tuple[int, ...]
    finish: Literal["stop", "length"]
    started: float
    first_token: float
    ended: float
    kv: KVUse
    peak_bytes: int | None
    n_cached: int = 0
    error: str | None = None


class Pass:
    """One batch on its way through an attached model: `prefill`, then `feed` for each further step.

    prefix: tokens that all prompts begin with, read before; each row continues a copy.
    """

    def __init__(
        self,
        model: Any,
        geometry: Geometry,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        policy: Policy | None,
        *,
        chunk: int,
        room: int = ROOM,
        rope: Rope | None = None,
        repeat_heads: bool = False,
        prefix: Prefix | None = None,
    ) -> None:
        self.model, self.chunk = model, chunk
        self.device = geometry.device
        lengths = [len(prompt) for prompt in prompts]
        self.session = Session(
            geometry, lengths, seeds, policy, room=max(1, room), rope=rope, repeat_heads=repeat_heads
        )
        self.cache = PassThrough()
        width = max(lengths)
        padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        self.ids = torch.tensor(padded, device=self.device)
        self.next = torch.tensor(lengths, device=self.device)[:, None]
        self.began = 0
        if prefix is not None:
            self.began = width - prefix.behind(prompts, self.session.window)
            self.session.resume(prefix.layers, self.began)
            self.cache.seen = self.began
        self.n_cached = [max(0, self.began - (width - length)) for length in lengths]

    @torch.inference_mode()
    def prefill(self) -> tuple[Tensor, dict[int, LoomError]]:
        """Read the prompts in chunks: logits [b, V] of their last tokens, and the rows that failed."""
        width = self.ids.shape[1]
        positions = (torch.arange(width, device=self.device) - (width - self.next)).clamp(min=0)
        logits = self.next
        chunk = self.chunk if self.session.clock is None else min(self.chunk, STREAM_CHUNK)
        for start in range(self.began, width, chunk):
            end = min(start + chunk, width)
            logits = self._forward(self.ids[:, start:end], positions[:, start:end], last_chunk=end == width)
        return logits, self.session.end_prefill()

    @torch.inference_mode()
    def feed(self, ids: Tensor) -> Tensor:
        """Continue each row with ids [b, n]: logits [b, V] of the last one."""
        n = ids.shape[1]
        positions = self.next if n == 1 else self.next + torch.arange(n, device=self.device)
        logits = self._forward(ids, positions)
        self.next = self.next + n
        return logits

    @torch.inference_mode()
    def fork(self, rows: int) -> Pass:
        """A batch of `rows` rows that all continue this one's only row, after its prefill; this one stays as it is."""
        twin = copy.copy(self)
        twin.session, twin.cache = self.session.fork(rows), copy.deepcopy(self.cache)
        twin.next = self.next.repeat(rows, 1)
        return twin

    def _forward(self, ids: Tensor, positions: Tensor, *, last_chunk: bool = False) -> Tensor:
        self.session.begin(ids.shape[1], last_chunk=last_chunk)
        if self.session.raw_positions:
            positions = torch.zeros_like(positions)
        return forward(self.model, Layers(self.session), self.cache, ids, positions)

    def failures(self) -> Mapping[int, LoomError]:
        """Rows whose scores became NaN or infinite while decoding."""
        return self.session.failures()

    @torch.inference_mode()
    def take(self, rows: Sequence[int]) -> None:
        """Keep these rows only; the memory of the others is freed."""
        self.session.take(rows)
        self.next = self.next[torch.tensor(rows, device=self.device)]


class _Answer:
    """What has been generated for one row."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.tokens: list[int] = []
        self.sampler = Sampler(row.temperature, row.top_p, row.seed)

    @property
    def banned(self) -> frozenset[int]:
        """What ends an answer, while too few tokens are generated."""
        row = self.row
        return row.eos_ids | row.stop_ids if len(self.tokens) < row.min_tokens else frozenset()

    def add(self, token: int) -> Literal["stop", "length"] | None:
        """Append a token; how the answer ended, or None."""
        row = self.row
        self.tokens.append(token)
        if token in row.eos_ids:
            return "stop"
        if row.stop is not None and len(self.tokens) >= row.min_tokens and row.stop(self.tokens):
            return "stop"
        return "length" if len(self.tokens) >= row.max_tokens else None


class Engine:
    """A loaded model that answers batches. Raises ModelError at once where the model breaks a rule of the KV host.

    prefill_chunk: prompt tokens read in one forward pass.
    """

    def __init__(self, model: Any, *, prefill_chunk: int = 2048) -> None:
        self.model, self.prefill_chunk = model, prefill_chunk
        self._examined: Examined = examine(model)
        self._rope: Rope | None = None

    @property
    def geometry(self) -> Geometry:
        """The shape of the model's keys and values."""
        return self._examined.geometry

    def run(
        self, rows: Sequence[Row], policy: Policy | None, prefix: Prefix | None = None
    ) -> Generator[tuple[int, RowResult], None, None]:
        """Answer a batch: (index, result) of each row as soon as it ends; ended rows leave the batch.

        policy None = dense. prefix: read before; all rows begin with it. A row that cannot be served is a result with
        `error`; the others go on.
        """
        started = time.perf_counter()
        good: list[int] = []
        if policy is not None:
            policy.start(self.geometry)
        for index, row in enumerate(rows):
            try:
                self._check(row, policy)
                good.append(index)
            except LoomError as error:
                yield index, failure(error, started, policy)
        if not good:
            return
        with attached(self.model), PeakMemory(self.geometry.device) as peak:
            for place, result in self._run([rows[index] for index in good], policy, started, peak, prefix):
                yield good[place], result

    def start(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], policy: Policy | None, **options: Any
    ) -> Pass:
        """A batch to be driven by hand (the model must be `attached`). options: of `Pass`."""
        rope = None
        if policy is not None:
            policy.start(self.geometry)
            rope = self._rope_for(policy, len(prompts[0]))
        options.setdefault("chunk", self.prefill_chunk)
        return Pass(self.model, self.geometry, prompts, seeds, policy, rope=rope, **options)

    def _rope_for(self, policy: Policy, n_valid: int) -> Rope | None:
        stream = policy.stream(n_valid)
        if policy.observes is None and (stream is None or not stream.in_cache):
            return None
        if self._rope is None:
            self._rope = examine_rope(self.model, self._examined)
        return self._rope

    def _check(self, row: Row, policy: Policy | None) -> None:
        if not row.ids:
            raise UsageError("the prompt is empty", why="there is no token to answer to")
        if row.max_tokens < 1:
            raise UsageError(f"max_tokens={row.max_tokens}", why="an answer has at least one token")
        if policy is not None:
            policy.check(len(row.ids))
            self._rope_for(policy, len(row.ids))

    def _run(
        self, rows: Sequence[Row], policy: Policy | None, started: float, peak: PeakMemory, prefix: Prefix | None
    ) -> Iterator[tuple[int, RowResult]]:
        room = min(ROOM, max(row.max_tokens for row in rows))
        batch = self.start([row.ids for row in rows], [row.seed for row in rows], policy, room=room, prefix=prefix)
        logits, failed = batch.prefill()
        uses, n_cached = batch.session.uses(), batch.n_cached
        for index, error in failed.items():
            yield index, failure(error, started, policy)
        alive = [index for index in range(len(rows)) if index not in failed]
        if not alive:
            return
        if failed:
            batch.take(alive)
            logits = logits[alive]
        for place, said in decode(batch, logits, [rows[index] for index in alive]):
            index = alive[place]
            own = {"kv": uses[index], "n_cached": n_cached[index]}
            yield index, result(said, started=started, peak_bytes=peak.bytes(), **own)


@dataclass(frozen=True, slots=True)
class Said:
    """What a row answered, and when, or why it could not be answered to its end: see `RowResult`."""

    token_ids: tuple[int, ...]
    finish: Literal["stop", "length"]
    first_token: float
    ended: float
    error: str | None = None


def result(said: Said, **rest: Any) -> RowResult:
    """The result of a row that has been answered; rest: the further fields."""
    return RowResult(
        token_ids=said.token_ids,
        finish=said.finish,
        first_token=said.first_token,
        ended=said.ended,
        error=said.error,
        **rest,
    )


class Continues(Protocol):
    """A batch whose prompts are read: `Pass`, or a model's own state (`recurrent`)."""

    def feed(self, ids: Tensor) -> Tensor:
        """Continue each row with ids [b, 1]: logits [b, V]."""

    def take(self, rows: Sequence[int]) -> None:
        """Keep these rows only."""

    def failures(self) -> Mapping[int, LoomError]:
        """Rows that cannot be continued, and why."""


def decode(batch: Continues, logits: Tensor, rows: Sequence[Row]) -> Iterator[tuple[int, Said]]:
    """Answer the rows of a batch whose prompts are read; logits [b, V] of their last tokens.

    Yields each row's index and what it said, when it ends.
    """
    answers = [_Answer(row) for row in rows]
    alive = list(range(len(rows)))
    plain = all(answer.sampler.greedy and not answer.row.min_tokens for answer in answers)
    first_token: float | None = None
    while alive:
        tokens, ids = _next(logits, [answers[index] for index in alive], plain)
        now = time.perf_counter()
        first_token = now if first_token is None else first_token
        left = []
        for place, index in enumerate(alive):
            finish = answers[index].add(tokens[place])
            if finish is None:
                left.append(place)
                continue
            yield index, Said(tuple(answers[index].tokens), finish, first_token, now)
        if len(left) < len(alive):
            alive = [alive[place] for place in left]
            if not alive:
                return
            batch.take(left)
            ids = ids[torch.tensor(left, device=ids.device)]
        logits = batch.feed(ids)
        if failed := batch.failures():
            for place, error in failed.items():
                yield alive[place], Said((), "stop", first_token, now, str(error))
            left = [place for place in range(len(alive)) if place not in failed]
            alive = [alive[place] for place in left]
            if alive:
                batch.take(left)
                logits = logits[left]


@torch.inference_mode()
def _next(logits: Tensor, answers: Sequence[_Answer], plain: bool) -> tuple[list[int], Tensor]:
    """The next token of each row, as a list and as ids [b, 1]. plain: all rows are greedy and may end at once."""
    if plain:
        ids = logits.argmax(dim=-1)
        tokens: list[int] = ids.tolist()
        return tokens, ids[:, None]
    tokens = [answer.sampler.next(logits[place], answer.banned) for place, answer in enumerate(answers)]
    return tokens, torch.tensor(tokens, device=logits.device)[:, None]


def failure(error: LoomError, started: float, policy: Policy | None) -> RowResult:
    """The result of a row that could not be answered."""
    now = time.perf_counter()
    asked = policy.request if policy is not None else ""
    return RowResult(
        token_ids=(),
        finish="stop",
        started=started,
        first_token=now,
        ended=now,
        kv=KVUse(bytes_dense=0, bytes_held=0, kept=0.0, saves="none", asked=asked),
        peak_bytes=None,
        error=str(error),
    )
