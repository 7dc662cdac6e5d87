"""The questions a page shows: which ones, and as what. Wrong answers and disagreements between arms come first.

Streams: one question's context is in memory at a time. Every text is made visible and cut in the middle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from loom_report.cells import Metric, levels_of, metrics_of
from loom_report.ledger import Answer, Ledger, Question
from loom_report.render.text import cut_middle, visible

from loom_core.contract.errors import RunError
from loom_core.contract.types import Json, Sample
from loom_core.run.store import RunFolder, Samples

MOST_SAMPLES = 500
MOST_BYTES = 30_000_000
ALL = 1 << 40

Pieces: TypeAlias = list[list[Json]]
"""A shortened text: ["text", t], ["mark", t] for evidence, ["cut", n] for n characters left out."""


class Limits(NamedTuple):
    """How much of a question is shown: characters of texts (around: beside evidence) and numbers of entries."""

    answer: int = 4000
    segment: int = 2000
    around: int = 300
    evidence: int = 4
    reference: int = 600
    references: int = 8


SHORT, WHOLE = Limits(), Limits(*([ALL] * 6))


def chunks(folder: RunFolder, ledger: Ledger, *, most_bytes: int = MOST_BYTES) -> Iterator[dict[str, Json]]:
    """One chunk a task and level: {task, level, n, shown, samples}, of at most 500 samples; chunks share the bytes."""
    samples = folder.read_samples()
    places = places_of(ledger)
    left = most_bytes
    for i, (task, level) in enumerate(places):
        budget, used = left // (len(places) - i), 0
        metrics = metrics_of(ledger, task)
        ranked = ranked_questions(ledger, task["name"], level, metrics[0])
        shown: list[Json] = []
        for question, answers in ranked[:MOST_SAMPLES]:
            record = full_record(ledger, samples, question, answers, metrics, SHORT)
            size = len(json.dumps(record, ensure_ascii=False).encode("utf-8"))
            if used + size > budget:
                break
            used += size
            shown.append(record)
        left -= used
        yield {"task": task["name"], "level": level, "n": len(ranked), "shown": len(shown), "samples": shown}


def places_of(ledger: Ledger) -> list[tuple[Mapping[str, Any], str]]:
    """Each task that has a metric, with each of its levels."""
    tasks = [task for task in ledger.plan["tasks"] if task["metrics"]]
    return [(task, level) for task in tasks for level in levels_of(ledger, task["name"])]


Asked: TypeAlias = tuple[Question, list[tuple[str, Answer]]]
"""A question and its answers by arm."""


def ranked_questions(ledger: Ledger, task: str, level: str, metric: Metric) -> list[Asked]:
    """The questions of a level, those that arms disagree on first, then the wrong ones, then the failed ones."""
    found: dict[Question, list[tuple[str, Answer]]] = {}
    for arm in ledger.plan["arms"]:
        for answer in ledger.of(task, level, arm["name"]):
            found.setdefault(answer.question, []).append((arm["name"], answer))
    return sorted(found.items(), key=lambda item: _rank(_verdict(ledger, metric, item[1])))


def light_record(ledger: Ledger, asked: Asked, metric: Metric) -> dict[str, Json]:
    """What a list of questions shows of one: its name, place and verdicts; no text."""
    question, answers = asked
    values = ledger.values.get((metric.name, metric.version), {})
    said = [
        {
            "arm": arm,
            "repeat": answer.repeat,
            "state": answer.state,
            "right": right(metric, values.get(answer.key)) if answer.state == "answered" else None,
        }
        for arm, answer in answers
    ]
    place = {"depth": question.depth, "length": question.length, "number": question.number}
    return {"id": visible(question.id), **place, **_verdict(ledger, metric, answers), "answers": said}


def right(metric: Metric, value: float | None) -> bool | None:
    """Whether a value counts as right: the best one of 0/1 scores, the better half of the range of others."""
    if value is None or not math.isfinite(metric.high - metric.low):
        return None
    if metric.binary:
        return value == metric.best
    middle = (metric.low + metric.high) / 2
    return value >= middle if metric.higher_is_better else value <= middle


def _verdict(ledger: Ledger, metric: Metric, answers: Sequence[tuple[str, Answer]]) -> dict[str, bool]:
    """wrong: some arm is; disagree: some arms are right and some are not; failed: some arm has no answer."""
    values = ledger.values.get((metric.name, metric.version), {})
    found = {right(metric, values.get(a.key)) for _, a in answers if a.state == "answered"}
    failed = any(answer.state != "answered" for _, answer in answers)
    return {"wrong": False in found, "disagree": {True, False} <= found, "failed": failed}


def _rank(verdict: Mapping[str, bool]) -> int:
    return 0 if verdict["disagree"] else 1 if verdict["wrong"] else 2 if verdict["failed"] else 3


def full_record(
    ledger: Ledger,
    samples: Samples,
    question: Question,
    answers: Sequence[tuple[str, Answer]],
    metrics: Sequence[Metric],
    limits: Limits,
) -> dict[str, Json]:
    """A question with its folded prompt and all arms' answers."""
    try:
        sample = samples.full(question.task, question.id)
        note = None
    except RunError as error:
        sample = samples.light(question.task, question.id)
        note = f"the context cannot be shown: {error.why}"
    return {
        "id": visible(question.id),
        "depth": question.depth,
        "length": question.length,
        "number": question.number,
        "note": note,
        "segments": [_segment(sample, i, limits) for i in range(len(sample.prompt.segments))],
        "references": [_short(_as_text(r), limits.reference) for r in sample.references[: limits.references]],
        "n_references": len(sample.references),
        **_verdict(ledger, metrics[0], answers),
        "answers": [_answer(ledger, arm, answer, metrics, limits) for arm, answer in answers],
    }


def _as_text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str, limit: int) -> Pieces:
    head, cut, tail = cut_middle(text, limit)
    pieces: Pieces = [["text", visible(head)]]
    return [*pieces, ["cut", cut], ["text", visible(tail)]] if cut else pieces


def _segment(sample: Sample, index: int, limits: Limits) -> dict[str, Json]:
    segment = sample.prompt.segments[index]
    spans = sorted((e.start, e.end) for e in sample.evidence if e.segment == index)
    pieces = _around(segment.text, spans[: limits.evidence], limits) if spans else _short(segment.text, limits.segment)
    return {"kind": segment.kind, "role": segment.role, "n": len(segment.text), "pieces": pieces}


def _around(text: str, spans: Sequence[tuple[int, int]], limits: Limits = SHORT) -> Pieces:
    """The text around evidence, which is marked; long evidence is itself cut in the middle."""
    pieces: Pieces = []
    place = 0
    for start, end in spans:
        start, end = max(place, min(start, len(text))), max(place, min(end, len(text)))
        before = max(place, start - limits.around)
        if before > place:
            pieces.append(["cut", before - place])
        if start > before:
            pieces.append(["text", visible(text[before:start])])
        head, cut, tail = cut_middle(text[start:end], limits.segment)
        pieces.append(["mark", visible(head)])
        if cut:
            pieces += [["cut", cut], ["mark", visible(tail)]]
        place = end
        following = [s for s, _ in spans if s >= end]
        after = min(len(text), end + limits.around, *following)
        if after > place:
            pieces.append(["text", visible(text[place:after])])
        place = max(place, after)
    if place < len(text):
        pieces.append(["cut", len(text) - place])
    return pieces


def _answer(ledger: Ledger, arm: str, answer: Answer, metrics: Sequence[Metric], limits: Limits) -> dict[str, Json]:
    """One arm's answer with its values; the texts are those of the last call, as they were scored."""
    values = {m.name: ledger.values.get((m.name, m.version), {}).get(answer.key) for m in metrics}
    record: dict[str, Json] = {"arm": arm, "repeat": answer.repeat, "state": answer.state, "values": values}
    record["right"] = right(metrics[0], values[metrics[0].name]) if answer.state == "answered" else None
    if answer.state == "missing" or ledger.sources is None:
        return record
    calls = ledger.sources.of(answer.key)
    last: Mapping[str, Any] = calls[-1]
    failure = next((call["error"] for call in calls if call.get("error")), None)
    text = last.get("answer") or last.get("text") or ""
    record |= {
        "text": _short(str(text), limits.answer),
        "error": _short(str(failure), limits.answer) if failure else None,
        "reasoning": _short(str(last["reasoning"]), limits.answer) if last.get("reasoning") else None,
        "finish": last["finish"],
        "n_calls": len(calls),
        "n_out": None if last.get("given") else sum(call.get("n_out") or 0 for call in calls),
        "n_dropped": sum(call.get("n_dropped") or 0 for call in calls),
        "notes": [visible(str(note))[:300] for note in ((last.get("kv") or {}).get("notes") or ())[:5]],
    }
    return record
