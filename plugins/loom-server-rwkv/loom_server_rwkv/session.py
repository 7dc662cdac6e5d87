"""One loaded RWKV: token ids in, one prompt at a time, its state carried from token to token.

The package has no batches; rows are answered in their order, and each response says `batch=1`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from loom_core.api import Arm, Generation, Json, KVUse, ModelCard, ModelError, Request, Response, Timing, Tokenizer
from loom_core.api.serving import failure, first_stop, misfit, render, said, stop_ids
from loom_server_rwkv.plugin import RwkvOptions

NOTE = "own state: bytes are of the model's state, which does not grow"
SLACK_TOKENS = 4
"""Tokens decoded before the first that a stop string can begin in."""


class RwkvSession:
    """Answers requests with one model of the package."""

    def __init__(self, model: Any, card: ModelCard, options: RwkvOptions) -> None:
        if card.tokenizer is None:
            raise ModelError(f"{card.name} has no tokenizer", where=card.path)
        self.card, self._options = card, options
        self._model: Any = model
        self._tokenizer: Tokenizer = card.tokenizer
        self._end: int | None = getattr(card.tokenizer, "eos_id", None)

    @property
    def info(self) -> dict[str, Json]:
        """What the manifest says of this worker's engine."""
        return {"engine": "rwkv", "rows": "one at a time"}

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """Answer the requests in their order. Raises ModelError for an arm that needs a KV cache."""
        if self._model is None:
            raise ModelError(f"the session of {self.card.name} is closed", hint="open the model again")
        if parts := arm.of_kind("model"):
            why = "every layer keeps a state of its own; there are no keys and values of each token to choose from"
            where = f"arm {arm.name}, layer 0 and all others (rule: own state)"
            raise ModelError(f"{parts[0].name} cannot run on an RWKV", where=where, why=why, hint="use the arm dense")
        for request in requests:
            yield self._answer(request)

    def close(self) -> None:
        """Let go of the model."""
        self._model = None

    def _answer(self, request: Request) -> Response:
        queued = time.perf_counter()
        ids = request.token_ids
        if ids is None:
            ids = render(request.prompt, self._tokenizer, chat=request.chat).token_ids or ()
        why = misfit(len(ids), request.generation, self.card.window)
        if not why and request.protocol == "context-only":
            why = "context-only: an RWKV has no cache that could be compressed (rule: own state)"
        if why:
            return failure(request, why, n_in=len(ids), queued=queued)
        try:
            return self._generated(request, list(ids), queued)
        except (RuntimeError, IndexError, MemoryError) as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            return failure(request, why, n_in=len(ids), queued=queued)

    def _generated(self, request: Request, ids: list[int], queued: float) -> Response:
        generation, started = request.generation, time.perf_counter()
        logits, state = self.read(ids)
        use = held(state)
        generator = torch.Generator().manual_seed(request.seed & (2**63 - 1))
        new: list[int] = []
        ends = frozenset(() if self._end is None else (self._end,)) | stop_ids(self._tokenizer, generation)
        first, finish = started, "length"
        while len(new) < generation.max_tokens:
            if new:
                logits, state = self._model.forward([new[-1]], state)
            banned = ends if len(new) < generation.min_tokens else frozenset()
            new.append(choose(logits, generation, generator, banned))
            first = time.perf_counter() if len(new) == 1 else first
            if new[-1] == self._end or self._stops(new, generation):
                finish = "stop"
                break
        text_ids = new[:-1] if new[-1] == self._end else new
        return Response(
            key=request.key,
            text=said(self._tokenizer, text_ids, request),
            finish="stop" if finish == "stop" else "length",
            n_in=len(ids),
            n_out=len(new),
            timing=Timing(queued=queued, started=started, first_token=first, ended=time.perf_counter()),
            token_ids=tuple(new),
            n_dropped=request.n_dropped,
            kv=use,
        )

    def read(self, ids: Sequence[int]) -> tuple[Tensor, Any]:
        """Logits [V] after the prompt, and the state."""
        logits, state = None, None
        for start in range(0, len(ids), self._options.prefill_chunk):
            logits, state = self._model.forward(list(ids[start : start + self._options.prefill_chunk]), state)
        assert logits is not None, "an empty prompt is refused before"
        return logits, state

    def _stops(self, new: list[int], generation: Generation) -> bool:
        if not generation.stop or len(new) < generation.min_tokens:
            return False
        # A token gives at least one byte of text, so a stop string of n bytes lies within the last n tokens.
        most = max(len(text.encode("utf-8", "surrogatepass")) for text in generation.stop) + SLACK_TOKENS
        return first_stop(self._tokenizer.decode(new[-most:]), generation.stop) is not None


def held(state: Sequence[Tensor]) -> KVUse:
    """The bytes of a state; this is what the model itself keeps, so dense and held are one."""
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state)
    return KVUse(bytes_dense=n_bytes, bytes_held=n_bytes, kept=1.0, saves="none", notes=(NOTE,))


def choose(logits: Tensor, generation: Generation, generator: torch.Generator, banned: Iterable[int]) -> int:
    """The next token of logits [V]: the best, or drawn with one uniform number from the row's own generator."""
    logits = logits.detach().cpu().double()
    if banned := [token for token in banned if token < logits.shape[0]]:
        logits = logits.clone()
        logits[banned] = -torch.inf
    if generation.temperature == 0:
        return int(logits.argmax())
    likely, order = (logits / generation.temperature).softmax(dim=-1).sort(descending=True, stable=True)
    mass = likely.cumsum(dim=-1)
    if generation.top_p < 1:
        mass = mass[: int((mass < generation.top_p).sum()) + 1]
    point = torch.rand((), generator=generator, dtype=torch.float64) * mass[-1]
    return int(order[min(int((mass <= point).sum()), len(mass) - 1)])
