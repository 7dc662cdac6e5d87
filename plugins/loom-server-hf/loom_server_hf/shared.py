"""What several questions continue: a prefix read once, or a context compressed once. Knows the engine.

Query-aware, a prefix is kept dense and each question's prompt is compressed at its end, as if it had been read alone.
Context-only, the context is compressed when it has been read, and every question is asked of a copy of that one cache.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from loom_kv import Policy

from loom_core.api import KVUse, LoomError
from loom_server_hf.engine import STREAM_CHUNK, Engine, Pass, Row, RowResult, decode, failure, result
from loom_server_hf.host import attached
from loom_server_hf.memory import PeakMemory
from loom_server_hf.prefix import Prefix

OF_CONTEXT = "context-only: bytes and kept share are of the compressed context, before the question"


def read(engine: Engine, ids: Sequence[int]) -> Prefix:
    """Read a prefix, dense, for several prompts that begin with it."""
    began = time.perf_counter()
    with attached(engine.model), PeakMemory(engine.geometry.device) as peak:
        batch = engine.start([tuple(ids)], [0], None)
        batch.prefill()
        _wait(engine)
        layers = tuple(store.decoded() for store in batch.session.stores)
        return Prefix(ids=tuple(ids), layers=layers, seconds=time.perf_counter() - began, peak_bytes=peak.bytes())


def may_share(engine: Engine, policy: Policy | None, n_tokens: int) -> bool:
    """True if prompts of up to `n_tokens` tokens may continue a prefix that was read without this policy."""
    if policy is None:
        return True
    policy.start(engine.geometry)
    return policy.shares_prefix and policy.stream(n_tokens) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A context that was compressed before any question was seen. batch: to be forked; error: why there is none.

    use: of the context. seconds: what reading and compressing took, once. peak_bytes: while that was done.
    """

    ids: tuple[int, ...]
    seconds: float
    batch: Pass | None = None
    use: KVUse | None = None
    peak_bytes: int | None = None
    error: LoomError | None = None


def compress(engine: Engine, ids: Sequence[int], policy: Policy | None, seed: int) -> Context:
    """Read a context and let the method compress it; seed: of the method's draws, for all questions alike."""
    began = time.perf_counter()
    ids, own = tuple(ids), copy.copy(policy)
    try:
        if own is not None:
            own.start(engine.geometry)
            own.check(len(ids))
        with attached(engine.model), PeakMemory(engine.geometry.device) as peak:
            batch = engine.start([ids], [seed], own)
            failed = batch.prefill()[1]
            _wait(engine)
            use, peak_bytes = batch.session.uses()[0], peak.bytes()
    except LoomError as error:
        return Context(ids=ids, seconds=time.perf_counter() - began, error=error)
    seconds = time.perf_counter() - began
    if failed:
        return Context(ids=ids, seconds=seconds, error=failed[0])
    use = replace(use, notes=(*use.notes, OF_CONTEXT))
    return Context(ids=ids, seconds=seconds, batch=batch, use=use, peak_bytes=peak_bytes)


def ask(engine: Engine, context: Context, rows: Sequence[Row]) -> Iterator[tuple[int, RowResult]]:
    """Answer questions on one compressed context: (index, result) of each row when it ends.

    ids of a row are those of its whole prompt, which begins with the context; all questions have the same length.
    """
    started = time.perf_counter()
    if context.error is not None or context.batch is None or context.use is None:
        assert context.error is not None
        for index in range(len(rows)):
            yield index, failure(context.error, started, None)
        return
    n_cached = len(context.ids)
    with attached(engine.model), PeakMemory(engine.geometry.device) as peak:
        batch = context.batch.fork(len(rows))
        chunk = batch.chunk if batch.session.clock is None else min(batch.chunk, STREAM_CHUNK)
        questions = torch.tensor([row.ids[n_cached:] for row in rows], device=engine.geometry.device)
        for part in torch.split(questions, chunk, dim=1):
            logits = batch.feed(part)
        for index, said in decode(batch, logits, rows):
            most = max((n for n in (context.peak_bytes, peak.bytes()) if n is not None), default=None)
            yield index, result(said, started=started, kv=context.use, n_cached=n_cached, peak_bytes=most)


def _wait(engine: Engine) -> None:
    """Until a GPU is done, so that a time means something."""
    if engine.geometry.device.type == "cuda":
        torch.cuda.synchronize(engine.geometry.device)
