"""One started vLLM engine: token ids in, each response out as soon as vLLM has finished it.

All requests that the engine may run at once are in its hands, those of one context one after the other, so that its
prefix cache finds them. Text is decoded by loom's own reader of tokenizers, as for every other server.
"""

from __future__ import annotations

import gc
import importlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loom_core.api import Arm, Json, ModelCard, ModelError, Request, Response, Timing, Tokenizer
from loom_core.api.serving import all_stop_ids, by_group, failure, misfit, render, said
from loom_server_vllm.plugin import VllmOptions


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in the engine's hands."""

    request: Request
    ids: tuple[int, ...]
    queued: float


class VllmSession:
    """Answers requests with one engine. lora: the folder of an adapter, laid on every request."""

    def __init__(self, llm: Any, card: ModelCard, options: VllmOptions, *, lora: str | None = None) -> None:
        vllm = _of("vllm")
        if card.tokenizer is None:
            raise ModelError(f"{card.name} has no tokenizer", where=card.path)
        self.card, self._options, self._llm = card, options, llm
        self._tokenizer: Tokenizer = card.tokenizer
        self._engine: Any = llm.llm_engine
        self._parameters, self._final = vllm.SamplingParams, _of("vllm.sampling_params").RequestOutputKind.FINAL_ONLY
        self._lora = _of("vllm.lora.request").LoRARequest("adapter", 1, lora) if lora else None
        self._version, self._n = vllm.__version__, 0
        config = self._engine.vllm_config
        self._window = int(config.model_config.max_model_len)
        self._device = str(config.device_config.device_type)

    @property
    def info(self) -> dict[str, Json]:
        """What the manifest says of this worker's engine."""
        return {"engine": f"vllm {self._version}", "device": self._device, "window": self._window}

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """Answer the requests, in any order, each response as soon as it is finished.

        A request that fails is a response with `error` set. Raises ModelError for an arm that needs local weights, and
        where the engine itself is lost.
        """
        if parts := arm.of_kind("model"):
            raise ModelError(f"vLLM keeps its own cache, so {parts[0].name} cannot reach it", where=f"arm {arm.name}")
        waiting = by_group(requests, self._options.batch)
        asked: dict[str, Asked] = {}
        more = True
        try:
            while more or asked:
                while more and len(asked) < self._options.batch:
                    request = next(waiting, None)
                    more = request is not None
                    if request is not None and (refused := self._ask(request, asked)) is not None:
                        yield refused
                if asked:
                    for output in self._engine.step():
                        if output.finished:
                            yield self._response(asked.pop(output.request_id), output)
        finally:
            if asked:
                self._engine.abort_request(list(asked))

    def close(self) -> None:
        """Let go of the engine and its memory."""
        shutdown = getattr(self._engine.engine_core, "shutdown", None)
        self._engine = self._llm = None
        if shutdown is not None:
            shutdown()
        gc.collect()

    def _ask(self, request: Request, asked: dict[str, Asked]) -> Response | None:
        """Hand a request to the engine; a response where it cannot be asked."""
        ids, queued = request.token_ids, time.perf_counter()
        if ids is None:
            ids = render(request.prompt, self._tokenizer, chat=request.chat).token_ids or ()
        if why := misfit(len(ids), request.generation, self._window):
            return failure(request, why, n_in=len(ids), queued=queued)
        self._n += 1
        name = str(self._n)
        try:
            self._engine.add_request(
                name, {"prompt_token_ids": list(ids)}, self._sampling(request), lora_request=self._lora
            )
        except (ValueError, TypeError) as error:
            return failure(request, f"vLLM refuses the request: {error}", n_in=len(ids), queued=queued)
        asked[name] = Asked(request, tuple(ids), queued)
        return None

    def _sampling(self, request: Request) -> Any:
        generation = request.generation
        return self._parameters(
            temperature=generation.temperature,
            top_p=generation.top_p,
            seed=request.seed if generation.temperature > 0 else None,
            stop=list(generation.stop) or None,
            # vLLM keeps ids, not strings, from coming before min_tokens; it knows the configuration's ends alone.
            stop_token_ids=all_stop_ids(self.card, generation) or None,
            max_tokens=generation.max_tokens,
            min_tokens=generation.min_tokens,
            detokenize=bool(generation.stop),
            output_kind=self._final,
        )

    def _response(self, item: Asked, output: Any) -> Response:
        request, given = item.request, output.outputs[0]
        ids = tuple(given.token_ids)
        ended_by_token = given.finish_reason == "stop" and not isinstance(given.stop_reason, str)
        if given.finish_reason not in ("stop", "length"):
            why = f"vLLM gave the request up: {given.finish_reason}"
            return failure(request, why, n_in=len(item.ids), queued=item.queued)
        return Response(
            key=request.key,
            text=said(self._tokenizer, ids[:-1] if ended_by_token else ids, request),
            finish=given.finish_reason,
            n_in=len(item.ids),
            n_out=len(ids),
            timing=self._timing(item, output.metrics),
            token_ids=ids,
            n_cached=output.num_cached_tokens or 0,
            n_dropped=request.n_dropped,
        )

    def _timing(self, item: Asked, stats: Any) -> Timing:
        """The engine's own times, which are of the monotonic clock as loom's are."""
        now = time.perf_counter()
        if stats is None or not stats.first_token_ts:
            return Timing(queued=item.queued, started=item.queued, first_token=None, ended=now)
        return Timing(
            queued=item.queued,
            started=stats.scheduled_ts,
            first_token=stats.first_token_ts,
            ended=stats.last_token_ts,
            batch=self._options.max_batch,
        )


def _of(module: str) -> Any:
    """A module of vLLM, which only its own environment has."""
    return importlib.import_module(module)
