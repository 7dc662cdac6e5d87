"""One endpoint under many requests: at most `concurrency` at once, each response handed out as it comes.

The requests run on an event loop in a thread of its own, so that a slow reader of responses delays no answer and
stretches no time. Knows loom's contract; how a call is made and read is elsewhere.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any

from loom_core.api import Arm, Json, LoomError, ModelCard, ModelError, Request, Response, Timing
from loom_core.api.serving import by_group
from loom_server_api.body import Call, Composer
from loom_server_api.client import Caller
from loom_server_api.plugin import ApiOptions
from loom_server_api.verdict import response_of

LOOK_AHEAD = 4
"""Requests are put together by context within this many times the concurrency."""
PATIENCE_SECONDS = 5.0


class Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loom-api", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def call(self, function: Any, *arguments: Any) -> None:
        """Have a function called there soon."""
        self._loop.call_soon_threadsafe(function, *arguments)

    @property
    def alive(self) -> bool:
        """False once the thread has ended."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop the loop and wait for its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()


class ApiSession:
    """Answers requests through one endpoint. A context manager: it holds connections."""

    def __init__(self, card: ModelCard, options: ApiOptions, composer: Composer) -> None:
        self.card, self._options, self._composer = card, options, composer
        self._failures: Counter[str] = Counter()
        self._loop = Loop()
        self._caller: Caller = self._loop.run(_made(options))

    @property
    def info(self) -> dict[str, Json]:
        """What the manifest says of this worker's server."""
        return {"endpoint": self._options.base_url, "concurrency": self._options.concurrency}

    def __enter__(self) -> ApiSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._caller.close())
        self._loop.close()
        for reason, n in self._failures.most_common(20):
            print(f"api: {n} attempt(s) failed and were made again: {reason}", file=sys.stderr)

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """Answer the requests, in any order, each response as soon as it is finished.

        Whatever goes wrong with a request is a response with `error` set. Raises ModelError for an arm that needs local
        weights, which the plan refuses before.
        """
        if parts := arm.of_kind("model"):
            raise ModelError(
                f"the endpoint runs the model, so {parts[0].name} cannot reach its cache", where=f"arm {arm.name}"
            )
        flight = _Flight(self)
        try:
            for request in by_group(requests, LOOK_AHEAD * self._options.concurrency):
                while flight.n >= self._options.concurrency or flight.waiting:
                    yield flight.next()
                flight.start(request)
            while flight.n:
                yield flight.next()
        finally:
            flight.cancel()

    async def answer(self, request: Request, queued: float) -> Response:
        """The response to one request; never raises."""
        try:
            call = self._composer.compose(request)
        except LoomError as error:
            return self._failed(request, str(error), queued, time.perf_counter(), time.perf_counter())
        try:
            return await self._ask(request, call, queued)
        except Exception as error:  # noqa: BLE001 - a bug over one reply must not lose the others
            now = time.perf_counter()
            return self._failed(request, self._caller.redact(f"{type(error).__name__}: {error}"), queued, now, now)

    async def _ask(self, request: Request, call: Call, queued: float) -> Response:
        outcome = await self._caller.ask(call)
        self._failures.update(outcome.failures)
        if outcome.reply is None:
            return self._failed(request, outcome.error, queued, outcome.started, outcome.ended)
        timing = Timing(
            queued=queued,
            started=outcome.started,
            first_token=outcome.first_token,
            ended=outcome.ended,
            batch=self._options.concurrency,
        )
        return response_of(request, call, outcome.reply, timing, options=self._options, tokenizer=self.card.tokenizer)

    def _failed(self, request: Request, why: str, queued: float, started: float, ended: float) -> Response:
        return Response(
            key=request.key,
            text="",
            finish="error",
            n_in=len(request.token_ids or ()),
            n_out=0,
            timing=Timing(
                queued=queued, started=started, first_token=None, ended=ended, batch=self._options.concurrency
            ),
            n_dropped=request.n_dropped,
            error=why,
        )

    @property
    def loop(self) -> Loop:
        """The loop that requests run on."""
        return self._loop


class _Flight:
    """The requests of one `generate` that are under way."""

    def __init__(self, session: ApiSession) -> None:
        self._session, self.n = session, 0
        self._done: queue.SimpleQueue[Response] = queue.SimpleQueue()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> bool:
        """True if a response can be had at once."""
        return not self._done.empty()

    def start(self, request: Request) -> None:
        """Send a request on its way."""
        self.n += 1
        self._session.loop.call(self._launch, request, time.perf_counter())

    def next(self) -> Response:
        """The next response; waits for it."""
        while True:
            try:
                response = self._done.get(timeout=PATIENCE_SECONDS)
            except queue.Empty:
                if not self._session.loop.alive:
                    raise ModelError("the thread that asks the endpoint ended") from None
                continue
            self.n -= 1
            return response

    def cancel(self) -> None:
        """Give up what is still under way."""
        if self.n and self._session.loop.alive:
            self._session.loop.call(self._cancel_all)

    def _launch(self, request: Request, queued: float) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(request, queued))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request, queued: float) -> None:
        self._done.put(await self._session.answer(request, queued))

    def _cancel_all(self) -> None:
        for task in list(self._tasks):
            task.cancel()


async def _made(options: ApiOptions) -> Caller:
    """A caller whose connections belong to the running loop."""
    return Caller(options)
