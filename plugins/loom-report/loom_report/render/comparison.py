"""Comparisons of runs as tables: `loom compare` and `loom diff`, on a terminal and in Markdown.

Knows the JSON of `compare` and the settings of `knobs`; reads no folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loom_report.render import text
from loom_report.render.tables import ALONE, Cell, Table, Tone, mark

from loom_core.run.settings_diff import Knob, shown

Comparison = Mapping[str, Any]


def tables(compared: Comparison) -> list[Table]:
    """Per task its score differences, by level where there are several, and further metrics; then agreement."""
    found = []
    for task in dict.fromkeys(row["task"] for row in compared["totals"]):
        totals = [row for row in compared["totals"] if row["task"] == task]
        cells = [row for row in compared["cells"] if row["task"] == task and row["n_pairs"]]
        for metric in dict.fromkeys((score["metric"], score["primary"]) for row in totals for score in row["scores"]):
            found.append(_scores(totals, task, *metric))
            if metric[1] and len({row["level"] for row in cells}) > 1:
                found.append(_by_level(cells, task, metric[0]))
    return [*found, _agreement(compared["agreement"])]


def _arms(row: Mapping[str, Any]) -> str:
    same = row["arm"] == row["other_arm"]
    return text.one_line(row["arm"] if same else f"{row['arm']} → {row['other_arm']}")


def _score(row: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(score for score in row["scores"] if score["metric"] == metric)
    return found


def _scores(rows: Sequence[Mapping[str, Any]], task: str, metric: str, primary: bool) -> Table:
    heads = ["arm", "first", "second", "Δ", "95 % CI", "p (Holm)", "+ / −", "n"]
    table = Table(f"{text.one_line(task)} · {text.one_line(metric)}", heads)
    scores = [_score(row, metric) for row in rows]
    table.rows += [[Cell(_arms(row)), *_numbers(score)] for row, score in zip(rows, scores, strict=True)]
    family = next((score["delta"]["family"] for score in scores if score["delta"]), 0)
    if primary:
        table.notes.append("Δ: second minus first, over questions that both answered; + / −: where it is better, worse")
    table.notes.append(f"* p < 0.05 in a paired test after Holm's correction over {family} differences")
    if any(mark(score["delta"]) == "°" for score in scores):
        table.notes.append(ALONE)
    return table


def _by_level(rows: Sequence[Mapping[str, Any]], task: str, metric: str) -> Table:
    levels = list(dict.fromkeys(row["level"] for row in rows if row["n_pairs"]))
    table = Table(f"{text.one_line(task)}: Δ by length", ["arm", *map(str, levels)])
    for arm in dict.fromkeys(map(_arms, rows)):
        of_arm = {row["level"]: _numbers(_score(row, metric))[2] for row in rows if _arms(row) == arm}
        table.rows.append([Cell(arm), *(of_arm.get(level, Cell(text.NONE)) for level in levels)])
    return table


def _numbers(score: Mapping[str, Any]) -> list[Cell]:
    delta, span = score["delta"], score["span"]
    if delta is None:
        return [*([Cell(text.NONE)] * 6), Cell("0")]
    tone: Tone = "" if not delta["significant"] else "better" if delta["n_better"] > delta["n_worse"] else "worse"
    return [
        Cell(text.score(score["first"], span)),
        Cell(text.score(score["second"], span)),
        Cell(text.signed(delta["value"], span) + mark(delta), tone),
        Cell(text.interval(delta["low"], delta["high"], span, sign=True), "quiet"),
        Cell(text.p_value(delta["p_holm"])),
        Cell(f"{delta['n_better']} / {delta['n_worse']}"),
        Cell(str(score["n"])),
    ]


def _agreement(rows: Sequence[Mapping[str, Any]]) -> Table:
    heads = ["task", "arm", "equal", "95 % CI", "n", "differ at", "earliest", "unit"]
    table = Table("agreement, token for token", heads, n_left=2)
    for row in rows:
        place = text.NONE if row["median"] is None else f"{row['median']:g}"
        cells = [
            text.one_line(row["task"]),
            _arms(row),
            text.share(row["share"]),
            f"[{text.share(row['low'])}, {text.share(row['high'])}]" if row["n"] else text.NONE,
            str(row["n"]),
            place,
            text.NONE if row["earliest"] is None else str(row["earliest"]),
            row["unit"],
        ]
        table.rows.append(list(map(Cell, cells)))
    table.notes.append("differ at: the median place, from 0, of the first difference between unequal answers")
    return table


def knob_table(knobs: Sequence[Knob], first: str, second: str) -> Table:
    """The settings that differ: what was asked before where it ran."""
    table = Table("what differs", ["setting", "first", "second"], n_left=3)
    for knob in sorted(knobs, key=lambda knob: not knob.asked):
        values = (text.one_line(shown(value), 60) for value in (knob.first, knob.second))
        tone: Tone = "" if knob.asked else "quiet"
        table.rows.append(
            [Cell(text.one_line(f"{knob.group}: {knob.name}", 100), tone), *(Cell(v, tone) for v in values)]
        )
    table.notes.append(f"first: {text.one_line(first)}; second: {text.one_line(second)}")
    if any(not knob.asked for knob in knobs):
        table.notes.append("code, versions, machine: circumstances that no one asked for")
    if not knobs:
        table.notes.append("nothing: the runs were asked and carried out alike")
    return table
