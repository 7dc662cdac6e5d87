"""One started SGLang engine: token ids in, each response out as soon as SGLang has finished it.

All requests that the engine may run at once are in its hands, those of one context one after the other, so that its
radix cache finds them. Text is decoded by loom's own reader of tokenizers, as for every other server.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

from loom_core.api import Arm, Json, ModelCard, ModelError, Request, Response, Timing, Tokenizer
from loom_core.api.serving import EngineOptions, all_stop_ids, by_group, failure, misfit, render, said

ADAPTER = "adapter"
SEED_BITS = 0x7FFFFFFF


class SglangSession:
    """Answers requests with one engine, on the engine's own event loop. lora: an adapter is laid on every request."""

    def __init__(self, engine: Any, card: ModelCard, options: EngineOptions, *, lora: bool, version: str) -> None:
        if card.tokenizer is None:
            raise ModelError(f"{card.name} has no tokenizer", where=card.path)
        self.card, self._options, self._engine = card, options, engine
        self._tokenizer: Tokenizer = card.tokenizer
        self._adapter, self._version = ADAPTER if lora else None, version

    @property
    def info(self) -> dict[str, Json]:
        """What the manifest says of this worker's engine."""
        return {"engine": f"sglang {self._version}", "window": self.card.window}

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """Answer the requests, in any order, each response as soon as it is finished.

        A request that fails is a response with `error` set. Raises ModelError for an arm that needs local weights.
        """
        if parts := arm.of_kind("model"):
            raise ModelError(f"SGLang keeps its own cache, so {parts[0].name} cannot reach it", where=f"arm {arm.name}")
        waiting, loop = by_group(requests, self._options.batch), self._engine.loop
        flying: set[asyncio.Task[Response]] = set()
        more = True
        try:
            while more or flying:
                while more and len(flying) < self._options.batch:
                    request = next(waiting, None)
                    more = request is not None
                    if request is not None:
                        flying.add(loop.create_task(self._answer(request)))
                if flying:
                    done, flying = loop.run_until_complete(asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED))
                    for task in done:
                        yield task.result()
        finally:
            for task in flying:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    loop.run_until_complete(task)

    def close(self) -> None:
        """Let go of the engine and its memory."""
        self._engine.shutdown()

    async def _answer(self, request: Request) -> Response:
        """The response to one request; never raises."""
        ids, queued = request.token_ids, time.perf_counter()
        if ids is None:
            ids = render(request.prompt, self._tokenizer, chat=request.chat).token_ids or ()
        if why := misfit(len(ids), request.generation, self.card.window):
            return failure(request, why, n_in=len(ids), queued=queued)
        first, last = None, None
        try:
            pieces = await self._engine.async_generate(
                input_ids=list(ids), sampling_params=self._limits(request), lora_path=self._adapter, stream=True
            )
            async for piece in pieces:
                first = time.perf_counter() if first is None and piece["output_ids"] else first
                last = piece
        except Exception as error:  # noqa: BLE001 - whatever the engine raises over one request must not lose the others
            return failure(request, f"SGLang: {type(error).__name__}: {error}", n_in=len(ids), queued=queued)
        return self._response(
            request,
            ids,
            last,
            Timing(
                queued=queued,
                started=queued,
                first_token=first,
                ended=time.perf_counter(),
                batch=self._options.max_batch,
            ),
        )

    def _limits(self, request: Request) -> dict[str, Any]:
        # SGLang keeps ids, not strings, from coming before min_new_tokens; it knows the configuration's ends alone.
        found = all_stop_ids(self.card, request.generation)
        return {**sampling(request), **({"stop_token_ids": found} if found else {})}

    def _response(self, request: Request, ids: tuple[int, ...], last: Any, timing: Timing) -> Response:
        facts = last["meta_info"] if last else {}
        end = facts.get("finish_reason") or {}
        if end.get("type") not in ("stop", "length"):
            why = f"SGLang gave the request up: {end.get('message') or end.get('type') or 'no answer'}"
            return failure(request, why, n_in=len(ids), queued=timing.queued)
        given = tuple(last["output_ids"])
        if len(given) != facts["completion_tokens"]:
            why = f"SGLang counts {facts['completion_tokens']} tokens and gave {len(given)}"
            return failure(request, why, n_in=len(ids), queued=timing.queued)
        ended_by_token = end["type"] == "stop" and isinstance(end.get("matched"), int)
        return Response(
            key=request.key,
            text=said(self._tokenizer, given[:-1] if ended_by_token else given, request),
            finish=end["type"],
            n_in=len(ids),
            n_out=len(given),
            timing=timing,
            token_ids=given,
            n_cached=facts.get("cached_tokens") or 0,
            n_dropped=request.n_dropped,
        )


def sampling(request: Request) -> dict[str, Any]:
    """The request's limits by SGLang's names."""
    generation = request.generation
    limits: dict[str, Any] = {
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "max_new_tokens": generation.max_tokens,
        "min_new_tokens": generation.min_tokens,
        "no_stop_trim": True,
    }
    if generation.stop:
        limits["stop"] = list(generation.stop)
    if generation.temperature > 0:
        limits["sampling_seed"] = request.seed & SEED_BITS
    return limits
