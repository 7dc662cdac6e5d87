"""What a reader must know before any number: the banners of a report, errors first.

Reads report.json as far as it is built; knows no table and no page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loom_report.ledger import Ledger
from loom_report.records import BannerRow, Report
from loom_report.render.absences import FEW, data_banners
from loom_report.render.doubts import doubts
from loom_report.render.text import one_line

from loom_core.contract.types import Json

BEFORE_NUMBERS = ("error", "warning", "note")


def banners(report: Report, ledger: Ledger) -> list[BannerRow]:
    """What a reader must know before the numbers: {kind: error | warning | note, text}, in that order."""
    return sorted(_banners(report, ledger), key=lambda banner: BEFORE_NUMBERS.index(banner["kind"]))


def _banners(report: Report, ledger: Ledger) -> Iterator[BannerRow]:
    state, n = report["state"], report["state"]["n_planned"]
    if state["n_error"]:
        example = next((row["example_error"] for row in report["totals"] if row["example_error"]), "")
        text = f"{state['n_error']} of {n} answers failed; scores are over the answers that were given. "
        yield {"kind": "error", "text": text + f"The first reason: {one_line(example, 300)}"}
    if not n:
        yield {"kind": "error", "text": "No answer was planned: there is nothing to score."}
    elif not state["n_answered"]:
        yield {"kind": "error", "text": f"None of the {n} planned answers has been given yet."}
    elif ledger.subset is not None:
        yield from _of_subset(report["anytime"] or {}, state)
    elif state["n_missing"]:
        text = f"{state['n_missing']} of {n} planned answers are missing: this report is of a partial run."
        yield {"kind": "warning", "text": text}
    if told := empty_answers(state):
        yield {"kind": "warning", "text": f"{told}; they are scored like any other answer."}
    yield from doubts(ledger)
    if waiting := state["n_not_scored_yet"]:
        text = f"{waiting} answers have no score yet and are outside every mean; `loom score` scores them."
        yield {"kind": "warning", "text": text}
    if without := state["n_unscored"] - waiting:
        text = f"{without} answers have no value and are outside the mean of their task's first metric; beside it are "
        yield {"kind": "warning", "text": text + "its bounds, with all of them wrong and all of them right."}
    if state["n_invalid_scores"]:
        text = f"{state['n_invalid_scores']} stored scores are not finite numbers and count as missing."
        yield {"kind": "warning", "text": text}
    if state["n_truncated"]:
        text = f"{state['n_truncated']} prompts were truncated: {state['tokens_dropped']} tokens dropped in all."
        yield {"kind": "warning", "text": text}
    if state["n_skipped"]:
        yield {"kind": "warning", "text": f"{state['n_skipped']} answers were left out: their prompts are too long."}
    if damage := str(ledger.damage):
        yield {"kind": "warning", "text": f"The run's files are damaged: {damage}."}
    if ledger.strangers:
        yield {"kind": "warning", "text": f"{ledger.strangers} recorded answers are not in the plan and not counted."}
    if report["server"].get("sees_references"):
        text = f"The server {report['server']['name']} is shown the reference answers: its scores are of no model."
        yield {"kind": "warning", "text": text}
    for told in report["told"]:
        yield {"kind": "warning", "text": one_line(told, 300)}
    for row in report["refused_arms"]:
        yield {"kind": "error", "text": f"arm {row['name']} is refused and did not run: {one_line(row['why'], 300)}"}
    yield from data_banners(report["tasks"])
    yield from _of_versions(report["tasks"])
    yield from _of_unscored(report["unscored"])
    yield from _of_judge(report["judge"])
    yield from _of_cost(report)
    for flag, text in FLAGS.items():
        names = [row["task"] for row in report["totals"] for s in row["scores"][:1] if s["flag"] == flag]
        names = list(dict.fromkeys(names))
        for name in [", ".join(names)] if len(names) > FEW else names:
            yield {"kind": "note", "text": f"{name}: {text}"}


def empty_answers(state: Mapping[str, Json]) -> str:
    """How many answers are empty, and where to look: a number about the endpoint or the limits, not about the model.

    "" where none is.
    """
    n, reasoned = state.get("n_empty", 0), state.get("n_empty_reasoned", 0)
    hint = f" ({reasoned} of them have reasoning: see --thinking, --thinking-budget)" if reasoned else ""
    return f"{n} of {state['n_answered']} answers are empty{hint}" if n else ""


def _of_versions(tasks: Sequence[Mapping[str, Json]]) -> Iterator[BannerRow]:
    """Benchmarks whose answers were asked by one version and scored by another."""
    versions = {
        task["benchmark"]: (task["benchmark_version"], task["scored_version"])
        for task in tasks
        if task.get("scored_version") not in (None, task["benchmark_version"])
    }
    for name, (asked, scored) in versions.items():
        text = f"{name}: asked with version {asked}, scored by version {scored} of the benchmark."
        yield {"kind": "warning", "text": text}


def _of_subset(anytime: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[BannerRow]:
    """How a stratified subset was chosen, and what to make of it."""
    asked = f"{state['n_answered']} of {state['n_planned']} planned answers"
    text = (
        f"A stratified subset: {asked} ({anytime['stopped'] or 'it goes on'}). Questions are drawn at random within "
        "task and level, more where intervals are widest; totals weigh levels by their planned questions, and scores "
        "are corrected for when the drawing ended. Intervals are those of a fixed number of questions."
    )
    yield {"kind": "note", "text": text}


FLAGS = {
    "chance": "not discriminative. The baseline is within its noise of chance: differences between arms say nothing.",
    "floor": "not discriminative. The baseline is within its noise of the worst score: a loss cannot show.",
    "ceiling": "the baseline is within its noise of the best score: a loss can show, a gain cannot.",
}


def _of_unscored(unscored: Mapping[str, Mapping[str, int]]) -> Iterator[BannerRow]:
    """Why values are missing."""
    for metric, reasons in unscored.items():
        shown = "; ".join(f"{n} × {one_line(why, 200)}" for why, n in list(reasons.items())[:3])
        more = f"; {len(reasons) - 3} further reasons" if len(reasons) > 3 else ""
        yield {"kind": "warning", "text": f"{metric}: {sum(reasons.values())} answers have no value: {shown}{more}"}


def _of_judge(judge: Mapping[str, Any] | None) -> Iterator[BannerRow]:
    """Who judged and at what cost."""
    if judge is None:
        return
    if judge["calls"]:
        cost = "" if judge["cost"] is None else f", cost {judge['cost']:.4g}"
        text = f"Judged by {one_line(judge['judge'])}: {judge['calls']} calls, {judge['n_in']} tokens in and "
        text += f"{judge['n_out']} out{cost}; this is not in the cost of the evaluated model."
        yield {"kind": "note", "text": text}
    if cut := judge.get("n_cut"):
        text = f"{cut} of {judge['calls']} replies of the judge were cut at their limit of tokens: --judge-option "
        yield {"kind": "warning", "text": text + "max_tokens=N (or thinking_budget=N) asks them again with more."}


def _of_cost(report: Report) -> Iterator[BannerRow]:
    answered = [row for row in report["totals"] if row["n_answered"]]
    for name in dict.fromkeys(row["task"] for row in answered if not row["cost"]["comparable"]):
        text = f"{name}: the arms ran at different batch sizes or on shared prefixes; their times are not comparable."
        yield {"kind": "warning", "text": text}
    for arm in report["arms"]:
        if all(part.get("kind", "model") != "model" for part in arm["parts"]):
            continue  # a shorter prompt saves before there is a cache to measure
        if arm["measured_saves"] and arm["saves"] != "none" and arm["saves"] not in arm["measured_saves"]:
            measured = ", ".join(arm["measured_saves"])
            text = f"{arm['name']} declares {arm['saves']} savings, but its responses say {measured}."
            yield {"kind": "warning", "text": text}
