"""Metrics that ask a model: their turns put to a judge on any server, recorded, replayed, and never a sample lost.

A call is known by its content (judge, messages, limits), so a repeated scoring asks only what is not recorded, and two
arms that need the same greedy call share it. Knows sessions and the store; knows no benchmark and no rubric.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loom_core.contract import border
from loom_core.contract.errors import LoomError
from loom_core.contract.guard import each, guarded, reason
from loom_core.contract.keys import digest, plain, prompt_digest, seed_of
from loom_core.contract.protocols import MOST_CALLS, Judging, ModelCard, Session
from loom_core.contract.types import Arm, Generation, Job, Json, Request, Response, Scored, Turn
from loom_core.prompting.render import messages, render
from loom_core.prompting.thinking import asked
from loom_core.registry.plugins import Catalog
from loom_core.run.conversation import response_from
from loom_core.run.judges import JudgeChoice, recorded_replies
from loom_core.run.manifest import redact
from loom_core.run.store import RunFolder, read_json, read_lines
from loom_core.run.writing import Appender, set_torn_tail_aside, write_json
from loom_core.score.silence import Silent, watched

JUDGE_ARM = Arm(name="dense")
NO_JUDGE = "needs a judge: give --judge SERVER:MODEL"


@dataclass
class Case:
    """One judged value in the making: the generator of its turns, and the call that is open."""

    job: Job
    metric: str
    version: str
    judging: Judging
    step: int = -1
    request: Request | None = None
    limits: Generation | None = None
    notes: tuple[str, ...] = ()
    result: Scored | None = None


@dataclass
class Tally:
    """What judging one metric came to. reasons: why values are missing."""

    judged: int = 0
    calls: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class Recorded:
    """The judge's recorded answers by the key of their call; errors are not answers and are asked again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: dict[str, int] = {}
        set_torn_tail_aside(path)
        for offset, record in read_lines(path):
            self.add(offset, record)

    def add(self, offset: int, record: Mapping[str, Json]) -> None:
        """Take note of a record that stands at `offset`."""
        if record.get("finish") in ("stop", "length"):
            self._offsets[str(record["key"])] = offset

    def __contains__(self, key: str) -> bool:
        return key in self._offsets

    def response(self, key: str) -> Response:
        """The recorded answer to a call."""
        with self._path.open("rb") as file:
            file.seek(self._offsets[key])
            return response_from(json.loads(file.readline()))


class Judge:
    """Puts the turns of cases to the judge of a run. Opened on the first call that is not recorded."""

    def __init__(
        self,
        folder: RunFolder,
        choice: JudgeChoice | None,
        catalog: Catalog,
        note: Callable[[str], None],
        *,
        hidden: list[str],
    ) -> None:
        self._folder, self._choice, self._catalog, self._note = folder, choice, catalog, note
        self._recorded = Recorded(folder.judgements)
        before = read_json(folder.judge) if folder.judge.exists() else {}
        self._identity: Json = before.get("identity")
        self._name: str | None = before.get("judge")
        # Without a judge given, what is recorded is read as it was taken.
        self._reply = choice.reply if choice is not None else recorded_replies(self._identity)
        self._facts: dict[str, Json] = {"asked": 0, "failed": 0, "n_cut": 0, "n_in": 0, "n_out": 0}
        self._facts |= {"seconds": 0.0, "cost": None}
        self._counted: set[str] = set()
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._hidden, self._lost = hidden, ""
        self._stack = ExitStack()
        self._card: ModelCard | None = None
        self._session: Session | None = None
        self._out: Appender | None = None

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def settle(self, cases: Sequence[Case]) -> None:
        """Give every case its result: a value, or None with the reason in `detail["error"]`."""
        waiting: list[Case] = []
        for case in cases:
            self._advance(case, None, waiting)
        while waiting:
            open_cases: dict[str, list[Case]] = {}
            for case in waiting:
                assert case.request is not None
                open_cases.setdefault(case.request.key, []).append(case)
            waiting = []
            fresh = []
            for key in list(open_cases):
                if key in self._recorded:
                    self._answered(self._recorded.response(key), open_cases.pop(key), waiting)
                else:
                    fresh.append(open_cases[key][0])
            for response in self._ask(fresh):
                self._answered(response, open_cases.pop(response.key), waiting)
            for left in open_cases.values():
                for case in left:
                    self._end(case, _missing(self._lost or "the judge gave no answer to this call"))

    def write_summary(self) -> None:
        """Write judge.json: who judged, what it cost, and what has no value. Nothing where nothing was to be judged."""
        if not self._tallies:
            if self._choice is not None:
                self._note(f"no metric of this run asks a model: the judge {self._choice.text} had nothing to do")
            return
        metrics = {
            f"{name}@{version}": {
                "n": tally.judged,
                "n_without_value": tally.reasons.total(),
                "calls": tally.calls,
                "reasons": dict(tally.reasons.most_common()),
            }
            for (name, version), tally in sorted(self._tallies.items())
        }
        calls = {"calls": len(self._counted), **self._facts}
        write_json(self._folder.judge, {"judge": self._name, "identity": self._identity, **calls, "metrics": metrics})

    # --- one case ----------------------------------------------------------------------------------------------------

    def _advance(self, case: Case, response: Response | None, waiting: list[Case]) -> None:
        """Hand a response to its case, and prepare the case's next call or take its result."""
        owner = f"metric {case.metric}"
        try:
            with guarded(owner, "score()"):
                try:
                    turn = next(case.judging) if response is None else case.judging.send(response)
                except StopIteration as end:
                    self._end(case, border.scored(end.value, case.metric))
                    return
                turn = border.turn(turn, owner)
        except LoomError as error:  # what a metric raises over one answer is that answer's missing value
            self._end(case, _missing(redact(_line(error), self._hidden)))
            return
        case.step, case.notes = case.step + 1, turn.notes
        problem = "" if case.step < MOST_CALLS else f"the metric asked for more than {MOST_CALLS} calls"
        problem = problem or self._described()
        if not problem:
            case.request, problem = self._request(case, turn)
        if problem:
            self._end(case, _missing(problem))
        else:
            waiting.append(case)

    def _answered(self, response: Response, cases: Sequence[Case], waiting: list[Case]) -> None:
        """One response for all cases that wait for it. A call that fails costs them their value."""
        self._count(response)
        for case in cases:
            self._tally(case).calls += 1
            if response.finish == "error":
                self._end(case, _missing(f"the judge's call failed: {response.error}"))
            else:
                self._advance(case, response, waiting)

    def _end(self, case: Case, scored: Scored) -> None:
        with suppress(LoomError), guarded(f"metric {case.metric}"):
            case.judging.close()
        case.result = Scored(
            value=scored.value, extracted=scored.extracted, detail={"judge": self._name, **scored.detail}
        )
        tally = self._tally(case)
        if scored.value is None:
            tally.reasons[str(scored.detail.get("error") or "the metric gave no value")[:200]] += 1
        else:
            tally.judged += 1

    def _tally(self, case: Case) -> Tally:
        return self._tallies.setdefault((case.metric, case.version), Tally())

    # --- the judge ---------------------------------------------------------------------------------------------------

    def _described(self) -> str:
        """Learn who the judge is, once; returns why that is not known."""
        if self._choice is None:
            return "" if self._identity else NO_JUDGE
        if self._card is None and not self._lost:
            try:
                self._card = self._choice.open_server(self._catalog).describe(
                    self._choice.model, self._choice.model_options
                )
            except LoomError as error:  # a judge that cannot be had costs values, not the run
                self._lost = "the judge cannot be described: " + redact(_line(error), self._hidden)
            else:
                self._identity, self._name = self._choice.identity(self._card), self._choice.text
        return self._lost

    def _request(self, case: Case, turn: Turn) -> tuple[Request | None, str]:
        """The call for a turn, and why there is none. Greedy calls of equal content are one call."""
        said = [[row["role"], row["content"]] for row in messages(turn.prompt)]
        prefill = [s.text for s in turn.prompt.segments if s.kind == "prefill"]
        limits = self._reply.limits(turn.generation)
        greedy = limits.temperature == 0
        key = digest(
            {
                "judge": self._identity,
                "messages": said,
                "prefill": prefill,
                "generation": limits,
                "draw": None if greedy else [case.job.key, case.metric, case.version, case.step],
            }
        )
        ids: tuple[int, ...] | None = None
        spans: Any = ()
        if self._card is not None and self._card.tokenizer is not None and key not in self._recorded:
            rendered = render(turn.prompt, self._card.tokenizer, chat="template")
            ids, spans = rendered.token_ids, rendered.spans
            room = None if self._card.window is None else self._card.window - limits.max_tokens
            if room is not None and len(ids or ()) > room:
                return None, "the question to the judge is longer than the judge's window"
        request = Request(
            key=key,
            job=case.job.key,
            step=case.step,
            prompt=turn.prompt,
            generation=asked(limits) if self._reply.thinks else limits,
            group=turn.prompt.context_digest,
            seed=seed_of(f"{key}:{limits.seed}"),
            chat="template",
            token_ids=ids,
            spans=spans,
        )
        case.limits = limits
        return request, ""

    def _ask(self, cases: Sequence[Case]) -> Iterator[Response]:
        """The judge's answers to the open calls of these cases, each recorded as it comes."""
        if not cases or not self._opened():
            return
        assert self._session is not None and self._out is not None
        by_key = {case.request.key: case for case in cases if case.request is not None}
        requests = [case.request for case in cases if case.request is not None]
        name = self._choice.server.spec.name if self._choice is not None else ""
        owner = f"server {name}"
        try:
            with guarded(owner, "generate()"):
                answers = self._session.generate(iter(requests), JUDGE_ARM)
            for given in watched(each(answers, owner, "generate()"), self._reply.silence):
                case = by_key[border.request_of(given, name, by_key)]
                response = self._taken(case, border.answered(given, name, case.job.sample))
                record = self._record(case, response)
                self._recorded.add(self._out.append(record), record)
                self._facts["asked"] += 1
                yield response
        except LoomError as error:  # a lost session costs the values that are still open
            self._lost = "the judge was lost: " + redact(_line(error), self._hidden)
        except Silent as error:
            self._lost = f"the judge hangs: {error} (--judge-option silence=SECONDS)"
            self._note(f"{self._lost}; it is asked no more")
            # What hangs would hang again when it is closed: it ends with the process.
            self._stack.pop_all()
            self._out.close()

    def _taken(self, case: Case, response: Response) -> Response:
        """A judge's reply with its thinking apart."""
        tokenizer = self._card.tokenizer if self._card is not None else None
        count = (lambda text: len(tokenizer.encode(text))) if tokenizer is not None else None
        assert case.limits is not None
        return self._reply.taken(response, case.limits, count)

    def _opened(self) -> bool:
        """Open the judge, once; False where there is none or it cannot be opened."""
        if self._session is not None or self._lost:
            return not self._lost
        if self._choice is None:
            self._lost = f"not among the recorded judgements of {self._name}; it is asked with --judge"
            return False
        self._note(f"asking the judge {self._choice.text}")
        try:
            server = self._choice.open_server(self._catalog)
            with guarded(f"server {self._choice.server.spec.name}", "open()"):
                self._session = self._stack.enter_context(server.open(self._choice.model, self._choice.model_options))
        except LoomError as error:  # as above
            self._lost = "the judge cannot be opened: " + redact(_line(error), self._hidden)
            return False
        self._out = Appender(self._folder.judgements)
        self._stack.callback(self._out.close)
        return True

    def _record(self, case: Case, response: Response) -> dict[str, Json]:
        assert case.request is not None
        record: dict[str, Json] = {
            "phase": "judge",
            "judge": self._name,
            "metric": case.metric,
            "metric_version": case.version,
            "job": case.job.key,
            "step": case.step,
            "sample": case.job.sample,
            "task": case.job.task,
            "arm": case.job.arm,
            "repeat": case.job.repeat,
            "prompt_digest": prompt_digest(case.request.prompt),
            **plain(response),
        }
        record["notes"] = [*case.notes, *response.notes]
        if record["error"]:
            record["error"] = redact(record["error"], self._hidden)
        return record

    def _count(self, response: Response) -> None:
        """Add a call's cost, once however often its answer is used."""
        if response.finish == "error":
            self._facts["failed"] += 1
            return
        if response.key in self._counted:
            return
        self._counted.add(response.key)
        self._facts["n_cut"] += response.finish == "length"
        self._facts["n_in"] += response.n_in
        self._facts["n_out"] += response.n_out
        self._facts["seconds"] += response.timing.ended - response.timing.started
        if response.cost is not None:
            self._facts["cost"] = (self._facts["cost"] or 0.0) + response.cost


def _missing(why: str) -> Scored:
    return Scored(value=None, detail={"error": why})


def _line(error: LoomError) -> str:
    return " ".join(reason(error).split())
