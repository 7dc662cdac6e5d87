"""Run against run: answers paired by task, sample, repeat and arm, with paired tests and token-level agreement.

A question is paired with the same question only: equal name and equal content. Differences are second minus first.
Knows ledgers and statistics; prints nothing and runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any, NamedTuple, TypeAlias

from loom_core.contract.errors import RunError, UsageError, nearest
from loom_core.contract.keys import digest
from loom_core.contract.records import Manifest, Plan
from loom_core.contract.types import Json
from loom_core.run.store import Damage, RunFolder, read_json, read_lines
from loom_report import cells, ledger as ledger_module
from loom_report.cells import Metric
from loom_report.ledger import Answer, Ledger
from loom_report.statistics import stats

SCHEMA = 1
"""Keys of schema 1.

first, second: each run's name, model, server, protocol and counts of answers. banners: {kind, text}, what a reader must
know first. totals, cells: task (× level) × pair of arms, with the counts of pairs and `scores`, one a metric: means of
both sides over the pairs, and `delta` (second minus first; Holm over all primary deltas of that list). agreement: task
× pair of arms: pairs with equal answers and where the others first differ, in `unit`. refused: {task, why}.
"""

Key: TypeAlias = tuple[str, int]


class Pair(NamedTuple):
    """Two answers to one question."""

    first: Answer
    second: Answer


@dataclass(frozen=True)
class Side:
    """A run as one side of a comparison. prints: the content digest of each question, by (task, sample id)."""

    folder: RunFolder
    plan: Plan
    manifest: Manifest
    ledger: Ledger
    prints: Mapping[tuple[str, str], str]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.path.resolve().name

    @property
    def arms(self) -> list[str]:
        """The names of its arms."""
        return [arm["name"] for arm in self.plan["arms"]]

    def summary(self) -> dict[str, Json]:
        """How it was made and how much of it is there."""
        states = [answer.state for rows in self.ledger.answers.values() for answer in rows]
        return {
            "name": self.name,
            "created": self.manifest.get("created"),
            "loom": self.manifest.get("loom"),
            "model": self.plan["model"]["name"],
            "model_digest": self.plan["model"]["digest"],
            "server": self.plan["server"]["name"],
            "protocol": self.plan["protocol"],
            "n_planned": len(states),
            "n_answered": states.count("answered"),
            "n_error": states.count("error"),
            "n_missing": states.count("missing"),
        }


def read(folder: RunFolder) -> Side:
    """One side. Raises RunError where the folder holds no plan yet."""
    if not folder.prepared:
        exists = folder.path.exists()
        why = "it holds no plan.json: not a run, or one that is still being prepared" if exists else "it does not exist"
        raise RunError("there is nothing to compare", where=str(folder.path), why=why, hint="give two run folders")
    plan = read_json(folder.plan)
    manifest: Any = read_json(folder.manifest) if folder.manifest.exists() else {}
    return Side(folder, plan, manifest, ledger_module.read(folder, plan), prints_of(folder))


def prints_of(folder: RunFolder) -> dict[tuple[str, str], str]:
    """What each question of a run asks, as a digest, by (task, sample id)."""
    return {(row["task"], row["id"]): _print(row) for _, row in read_lines(folder.samples, Damage())}


def _print(row: Mapping[str, Any]) -> str:
    """What a question asks, as a digest: its segments (contexts by their own digest) and its references."""
    parts = [[part["kind"], part["role"], part.get("stored") or part.get("text")] for part in row["prompt"]["segments"]]
    return digest([parts, row["references"]])[:24]


def compare(
    first: Side, second: Side, *, arms: Sequence[tuple[str, str]] = (), by_name: bool = False
) -> dict[str, Json]:
    """The comparison of two runs as JSON (see `SCHEMA`). Raises RunError where they have no question in common.

    arms: which arm of the first run with which of the second; those of equal names where none is given. by_name: also
    pair questions of equal name whose content differs (samples of another seed): they share level and depth at most.
    """
    chosen = _arms(first, second, arms)
    tasks, refused = _tasks(first, second)
    report: dict[str, Json] = {
        "schema": SCHEMA,
        "first": first.summary(),
        "second": second.summary(),
        "by_name": by_name,
        "banners": [],
        "totals": [],
        "cells": [],
        "agreement": [],
        "refused": refused,
    }
    for task in tasks:
        metrics = _metrics(first, second, task, refused)
        rows = {pair: _pairs(first, second, task, pair, by_name) for pair in chosen}
        levels = cells.levels_of(first.ledger, task)
        for arm_pair, (pairs, counts) in rows.items():
            report["totals"].append(_row(first, second, task, None, arm_pair, pairs, metrics) | counts)
            report["agreement"].append(_agreement(first, second, task, arm_pair, pairs))
            for level in levels:
                of_level = [pair for pair in pairs if pair.first.question.level == level]
                report["cells"].append(_row(first, second, task, level, arm_pair, of_level, metrics))
    _refuse_nothing_in_common(first, second, report, chosen)
    for name in ("totals", "cells"):
        for primary in (True, False):
            found = [s["delta"] for row in report[name] for s in row["scores"] if s["primary"] == primary]
            cells.adjust([delta for delta in found if delta])
    report["banners"] = list(_banners(first, second, report))
    return report


def _arms(first: Side, second: Side, asked: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    if not asked:
        common = [(name, name) for name in first.arms if name in second.arms]
        if not common:
            why = f"{first.name} has {', '.join(first.arms)}; {second.name} has {', '.join(second.arms)}"
            raise RunError("these runs have no arm in common", why=why, hint="name a pair: --arms FIRST SECOND")
        return common
    for pair in asked:
        for side, name in zip((first, second), pair, strict=True):
            if name not in side.arms:
                raise UsageError(f"run {side.name} has no arm {name!r}", hint=nearest(name, side.arms))
    return list(dict.fromkeys(asked))


def _tasks(first: Side, second: Side) -> tuple[list[str], list[dict[str, Json]]]:
    """The tasks that may be compared, and why others are not."""
    mine, theirs = ({task["name"]: task for task in side.plan["tasks"]} for side in (first, second))
    tasks, refused = [], []
    for name in dict.fromkeys([*mine, *theirs]):
        why = ""
        if name not in mine or name not in theirs:
            why = f"only in {first.name if name in mine else second.name}"
        elif versions := _version_difference(mine[name], theirs[name]):
            why = f"{versions}: their scores are of different tasks"
        elif mine[name].get("unavailable") or theirs[name].get("unavailable"):
            why = "its data was unavailable to one of the runs, or it was refused there"
        if why:
            refused.append({"task": name, "why": why})
        else:
            tasks.append(name)
    return tasks, refused


def _version_difference(mine: Mapping[str, Json], theirs: Mapping[str, Json]) -> str:
    labels = {"benchmark_version": "benchmark version", "version": "task version"}
    return ", ".join(
        f"{label} {mine.get(key)} and {theirs.get(key)}"
        for key, label in labels.items()
        if mine.get(key) != theirs.get(key)
    )


def _metrics(first: Side, second: Side, task: str, refused: list[dict[str, Json]]) -> list[tuple[Metric, Metric]]:
    """The metrics that both scored by one version, as each side knows them."""
    found = []
    sides = []
    for side in (first, second):
        planned = next(row for row in side.plan["tasks"] if row["name"] == task)
        sides.append({metric.name: metric for metric in cells.metrics_of(side.ledger, planned)})
    for name, metric in sides[0].items():
        other = sides[1].get(name)
        if other is None or other.version != metric.version:
            versions = f"{metric.version} and {other.version if other else 'none'}"
            why = f"{name} has versions {versions}; `loom score` both runs with one"
            refused.append({"task": task, "why": why})
        else:
            found.append((replace(metric, binary=metric.binary and other.binary), other))
    return found


def _pairs(
    first: Side, second: Side, task: str, arms: tuple[str, str], by_name: bool
) -> tuple[list[Pair], dict[str, Json]]:
    """The pairs of answered questions of two arms, and what is left over."""
    other = {(answer.question.id, answer.repeat): answer for answer in second.ledger.of(task, None, arms[1])}
    mine = first.ledger.of(task, None, arms[0])
    pairs, n_content, n_unanswered, n_named = [], 0, 0, 0
    for answer in mine:
        theirs = other.get((answer.question.id, answer.repeat))
        if theirs is None:
            continue
        n_named += 1
        place = (task, answer.question.id)
        if first.prints.get(place) != second.prints.get(place):
            n_content += 1
            if not by_name:
                continue
        if answer.state == theirs.state == "answered":
            pairs.append(Pair(answer, theirs))
        else:
            n_unanswered += 1
    counts = {
        "n_pairs": len(pairs),
        "n_first": len(mine),
        "n_second": len(other),
        "n_only_first": len(mine) - n_named,
        "n_only_second": len(other) - n_named,
        "n_other_content": n_content,
        "n_unanswered": n_unanswered,
    }
    return pairs, counts


def _row(
    first: Side,
    second: Side,
    task: str,
    level: str | None,
    arms: tuple[str, str],
    pairs: Sequence[Pair],
    metrics: Sequence[tuple[Metric, Metric]],
) -> dict[str, Json]:
    row: dict[str, Json] = {"task": task, "level": level, "arm": arms[0], "other_arm": arms[1], "n_pairs": len(pairs)}
    row["scores"] = [_score(first, second, (task, level, *arms), metric, pairs) for metric, _ in metrics]
    return row


def _score(
    first: Side, second: Side, place: tuple[Json, ...], metric: Metric, pairs: Sequence[Pair]
) -> dict[str, Json]:
    name = (metric.name, metric.version)
    mine, theirs = first.ledger.values.get(name, {}), second.ledger.values.get(name, {})
    scored = []
    for pair in pairs:
        one, other = mine.get(pair.first.key), theirs.get(pair.second.key)
        if one is not None and other is not None:
            question = pair.first.question
            cluster = ("document", question.cluster) if question.cluster is not None else ("question", question.number)
            scored.append((cluster, other, one))
    return {
        "metric": metric.name,
        "version": metric.version,
        "primary": metric.primary,
        "span": metric.span,
        "first": fmean(one for *_, one in scored) if scored else None,
        "second": fmean(other for _, other, _ in scored) if scored else None,
        "n": len(scored),
        "n_unscored": len(pairs) - len(scored),
        "n_equal": sum(one == other for _, other, one in scored),
        "delta": cells.difference(metric, scored, f"{place} {metric.name} compare") if scored else None,
    }


def _agreement(first: Side, second: Side, task: str, arms: tuple[str, str], pairs: Sequence[Pair]) -> dict[str, Json]:
    """How many answers are equal, and where the others first differ: in tokens where both runs recorded the ids of one
    tokenizer, else in characters. One pair is in memory at a time.
    """
    one_tokenizer = _one_tokenizer(first, second)
    equal, places, n_tokens = 0, [], 0
    for pair in pairs:
        mine, theirs = (list(_said(side, answer)) for side, answer in zip((first, second), pair, strict=True))
        ids = one_tokenizer and all(tokens is not None for tokens, _ in (*mine, *theirs))
        n_tokens += ids
        place = _divergence([said[0 if ids else 1] for said in mine], [said[0 if ids else 1] for said in theirs])
        if place is None:
            equal += 1
        else:
            places.append(place)
    unit = "tokens" if n_tokens == len(pairs) else "characters" if not n_tokens else "tokens or characters"
    share = stats.wilson(equal, len(pairs)) if pairs else None
    return {
        "task": task,
        "arm": arms[0],
        "other_arm": arms[1],
        "n": len(pairs),
        "n_equal": equal,
        "share": equal / len(pairs) if pairs else None,
        "low": share.low if share else None,
        "high": share.high if share else None,
        "unit": unit,
        "earliest": min(places, default=None),
        "median": median(places) if places else None,
    }


def _one_tokenizer(first: Side, second: Side) -> bool:
    mine, theirs = first.plan["model"], second.plan["model"]
    known = mine.get("tokenizer") and theirs.get("tokenizer")
    return bool(mine["tokenizer"] == theirs["tokenizer"]) if known else bool(mine["digest"] == theirs["digest"])


def _said(side: Side, answer: Answer) -> Iterator[tuple[list[int] | None, str]]:
    """Token ids (None where they were not recorded) and text of each call of an answer."""
    if side.ledger.sources is not None:
        for record in side.ledger.sources.of(answer.key):
            yield record.get("token_ids"), str(record.get("text") or "")


def _divergence(mine: Sequence[Any], theirs: Sequence[Any]) -> int | None:
    """The first place at which two answers (a sequence of units for each call) differ; None where they are equal."""
    if mine == theirs:
        return None
    place = 0
    for one, other in zip(mine, theirs, strict=False):
        if one != other:
            same = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
            return place + next(same, min(len(one), len(other)))
        place += len(one)
    return place


def _refuse_nothing_in_common(
    first: Side, second: Side, report: Mapping[str, Any], chosen: Sequence[tuple[str, str]]
) -> None:
    """Raise RunError that says why not one answer could be paired."""
    if any(row["n_pairs"] for row in report["totals"]):
        return
    where = f"{first.name} and {second.name}"
    if not report["totals"]:
        why = "; ".join(f"{row['task']}: {row['why']}" for row in report["refused"]) or "no task was planned"
        raise RunError("these runs have no task in common", where=where, why=why)
    content, unanswered = (sum(row[key] for row in report["totals"]) for key in ("n_other_content", "n_unanswered"))
    if unanswered:
        why = f"{unanswered} common questions have no answer in one of them yet"
        raise RunError("these runs have no answered question in common", where=where, why=why, hint="continue the runs")
    if content:
        why = f"{content} questions share their names, but ask something else (another seed, variant or template)"
        hint = "compare runs of the same samples, or pair by name all the same with --by-name"
        raise RunError("these runs have no question in common", where=where, why=why, hint=hint)
    names = ", ".join(one if one == other else f"{one} with {other}" for one, other in chosen)
    raise RunError("these runs have no question in common", where=where, why=f"in the arms {names}")


def _banners(first: Side, second: Side, report: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for side, label in ((first, "first"), (second, "second")):
        state = report[label]
        if state["n_answered"] < state["n_planned"]:
            left = f"{state['n_error']} failed, {state['n_missing']} missing"
            text = f"{side.name} is not complete: {state['n_answered']} of {state['n_planned']} answers, {left}."
            yield {"kind": "warning", "text": text + " Only questions that both answered are compared."}
        if side.ledger.subset is not None:
            text = f"{side.name} asked a stratified subset (--budget, --until). "
            yield {"kind": "note", "text": text + "Totals are plain means over the common questions."}
        if damage := str(side.ledger.damage):
            yield {"kind": "warning", "text": f"The files of {side.name} are damaged: {damage}."}
    if first.plan["protocol"] != second.plan["protocol"]:
        text = f"The protocols differ: {first.plan['protocol']} and {second.plan['protocol']}."
        yield {"kind": "warning", "text": text + " The difference is of the protocols as much as of anything else."}
    for row in report["refused"]:
        yield {"kind": "warning", "text": f"Not compared: {row['task']}: {row['why']}."}
    content = sum(row["n_other_content"] for row in report["totals"])
    if content:
        done = "are paired by name alone" if report["by_name"] else "are left out"
        yield {
            "kind": "warning",
            "text": f"{content} answers are to questions of one name but other content; they {done}.",
        }
    for key, side in (("n_only_first", first), ("n_only_second", second)):
        if only := sum(row[key] for row in report["totals"]):
            yield {"kind": "note", "text": f"{only} answers of {side.name} have no partner and are left out."}
    if unscored := sum(s["n_unscored"] for row in report["totals"] for s in row["scores"] if s["primary"]):
        yield {"kind": "warning", "text": f"{unscored} pairs have no score on one side; `loom score` scores a run."}
