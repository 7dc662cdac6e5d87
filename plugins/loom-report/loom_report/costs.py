"""What the answers of a cell cost: times, peak bytes, KV bytes. Knows ledger rows; reads no file and prints nothing.

Arms are compared on a common footing: over the questions that all of them answered, and for times and peaks only those
answered under one condition: the same batch size, and all or none of them on a prefix that was computed for another
request. Where arms share no condition, each shows its own most frequent one and is marked as not comparable; so is an
arm whose answers of several calls had them under different conditions, over all its answers.

Times are a question's, not a request's: to the first token of the answer everything counts that was done for it before,
earlier calls and the rewriting of every prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

from loom_core.contract.types import Json
from loom_report.ledger import Answer, Call


class Condition(NamedTuple):
    """Under which a request ran: requests in its batch, and whether its prefix was computed for another request."""

    batch: int
    forked: bool


def condition(answer: Answer) -> Condition | None:
    """The condition of all calls of an answer; None where it has no calls or they differ."""
    found = {Condition(call.batch, call.forked) for call in answer.calls}
    return found.pop() if len(found) == 1 else None


class Footing(NamedTuple):
    """What costs are compared over, as (question, repeat) pairs: those that every arm answered, and those that every
    arm answered under `condition`.
    """

    answered: frozenset[tuple[int, int]]
    condition: Condition | None
    timed: frozenset[tuple[int, int]]


def _measured(answer: Answer) -> bool:
    """Whether times and tokens of an answer are known: it came, and loom asked for it."""
    return answer.state == "answered" and not any(call.given for call in answer.calls)


def _asked(answer: Answer) -> tuple[int, int]:
    return answer.question.number, answer.repeat


def common_footing(arms: Mapping[str, Sequence[Answer]]) -> Footing:
    """The common footing of arms, under the condition with most questions; arms without any answer do not count."""
    found: list[dict[Condition | None, set[tuple[int, int]]]] = []
    for rows in arms.values():
        by_condition: dict[Condition | None, set[tuple[int, int]]] = {}
        for answer in rows:
            if _measured(answer):
                by_condition.setdefault(condition(answer), set()).add(_asked(answer))
        if by_condition:
            found.append(by_condition)
    if not found:
        return Footing(frozenset(), None, frozenset())
    answered = set.intersection(*(set().union(*by_condition.values()) for by_condition in found))
    common = {
        key: set.intersection(*(by_condition.get(key, set()) for by_condition in found))
        for key in found[0]
        if key is not None
    }
    best = max(common, key=lambda key: (len(common[key]), not key.forked, -key.batch), default=None)
    if best is None or not common[best]:
        return Footing(frozenset(answered), None, frozenset())
    return Footing(frozenset(answered), best, frozenset(common[best]))


def cost(answers: Sequence[Answer], footing: Footing) -> dict[str, Json]:
    """The costs of a cell. Times are medians over n_timed answers; seconds_to_first_token counts from the question to
    the first token of its answer (see `to_first_token`). seconds_shared: reading the
    tokens that several questions share, once for all of them and in none of the other times. peak_bytes is the
    largest of any timed call. KV values and tokens are means over the answers to questions that all arms answered.
    Both count the prompt augmentations' own time in; `rewriting` holds it apart, with their calls to other
    models, as means over answers. calls: of an answer, on average; several_calls: share of answers that took more
    than one (a strategy's route rate). Of answers that loom did not make nothing is known: every value is None.
    """
    done = [answer for answer in answers if _measured(answer)]
    shared = [answer for answer in done if _asked(answer) in footing.answered]
    conditions = Counter(condition(answer) for answer in done)
    chosen = footing.condition
    # To leave out the answers whose calls had no one condition would leave out the dearest: those with several calls.
    mixed = any(condition(answer) is None and len(answer.calls) > 1 for answer in done)
    if mixed:
        timed = shared or done
    elif chosen is not None:
        timed = [answer for answer in shared if condition(answer) == chosen and _asked(answer) in footing.timed]
    else:
        known = [key for key in conditions if key is not None]
        chosen = max(known, key=lambda key: (conditions[key], not key.forked, -key.batch), default=None)
        timed = [answer for answer in done if chosen is not None and condition(answer) == chosen]
    peaks = [call.peak_bytes for answer in timed for call in answer.calls if call.peak_bytes is not None]
    return {
        "seconds_to_first_token": _median(map(to_first_token, timed)),
        "seconds_per_token": _median(map(_seconds_per_token, timed)),
        "seconds": _median(sum(map(_seconds, answer.calls)) for answer in timed),
        "seconds_shared": _median(sum(call.shared_seconds for call in answer.calls) for answer in timed),
        "n_timed": len(timed),
        "batch": chosen.batch if chosen else None,
        "forked": chosen.forked if chosen else None,
        "comparable": not done or (footing.condition is not None and not mixed),
        "conditions": [
            {"batch": key.batch if key else None, "forked": key.forked if key else None, "n": n}
            for key, n in conditions.most_common()
        ],
        "peak_bytes": max(peaks, default=None),
        "kv": _kv(shared or done),
        "rewriting": _rewriting(shared or done),
        "n_calls": sum(len(answer.calls) for answer in done),
        "calls": _mean(len(answer.calls) for answer in shared),
        "several_calls": _mean(len(answer.calls) > 1 for answer in shared),
        "tokens_in": _mean(sum(call.n_in for call in answer.calls) for answer in shared),
        "tokens_out": _mean(sum(call.n_out for call in answer.calls) for answer in shared),
        "tokens_cached": _mean(sum(call.n_cached for call in answer.calls) for answer in shared),
    }


def to_first_token(answer: Answer) -> float | None:
    """Seconds from a question to the first token of its answer: the earlier calls whole, the last one to its first
    token, and the rewriting of all their prompts. A request counts from the start of its batch; tokens that were read
    once for several questions lie before it. Of a task of several turns, the mean over its turns, each from its own
    question on. None where a last call's first token is not known.
    """
    turns: dict[int, list[Call]] = {}
    for call in answer.calls:
        turns.setdefault(call.turn, []).append(call)
    found = []
    for calls in turns.values():
        last = calls[-1]
        if last.to_first_token is None:
            return None
        found.append(sum(map(_seconds, calls)) - last.seconds + last.to_first_token)
    return fmean(found) if found else None


def _seconds_per_token(answer: Answer) -> float | None:
    """Decoding seconds per token after the first, over all calls of an answer."""
    known = [call for call in answer.calls if call.decoding is not None and call.n_out > 1]
    tokens = sum(call.n_out - 1 for call in known)
    return sum(call.decoding or 0.0 for call in known) / tokens if tokens else None


def _seconds(call: Call) -> float:
    """Seconds from before the prompt was rewritten, where that is done, to the end of the answer."""
    return call.seconds + (call.rewriting.seconds if call.rewriting else 0.0)


def _rewriting(done: Sequence[Answer]) -> dict[str, Json] | None:
    """What prompt augmentations took for an answer, on average; kept: the share of context tokens they left."""
    rows = [[call.rewriting for call in answer.calls if call.rewriting] for answer in done]
    if not any(rows):
        return None
    costs = [took.cost for row in rows for took in row if took.cost is not None]
    return {
        "seconds": _mean(sum(took.seconds for took in row) for row in rows),
        "index_seconds": _mean(sum(took.index_seconds for took in row) for row in rows),
        "calls": _mean(sum(took.calls for took in row) for row in rows),
        "read_tokens": _mean(sum(took.read_tokens for took in row) for row in rows),
        "cost": sum(costs) / len(rows) if costs else None,
        "kept": _mean(took.kept for row in rows for took in row),
        "n": len(rows),
    }


def _kv(done: Sequence[Answer]) -> dict[str, Json] | None:
    """Mean KV bytes and kept share over answers; of an answer of several calls, those of its largest cache."""
    calls = []
    for answer in done:
        caches = [call for call in answer.calls if call.bytes_held is not None]
        if caches:
            calls.append(max(caches, key=lambda call: call.bytes_held or 0))
    if not calls:
        return None
    held, dense = _mean(call.bytes_held for call in calls), _mean(call.bytes_dense for call in calls)
    return {
        "bytes_held": held,
        "bytes_dense": dense,
        "held_share": held / dense if held is not None and dense else None,
        "kept": _mean(call.kept for call in calls),
        "tokens_held": _mean(call.tokens_held for call in calls),
        "tokens_asked": _mean(call.tokens_asked for call in calls),
        "kept_asked": _mean(call.kept_asked for call in calls),
        "bytes_asked": _mean(call.bytes_asked for call in calls),
        "saves": sorted({call.saves for call in calls if call.saves is not None}),
        "n": len(calls),
    }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
