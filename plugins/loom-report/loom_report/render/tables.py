"""The tables of a report as plain rows of text, shared by every rendering; CSV and LaTeX, which are tables alone.

Knows report.json's dict and how numbers read; knows no terminal and no page.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from loom_report.build import rows_of
from loom_report.records import Report, ReportTask
from loom_report.render import beside, rewritten, text

from loom_core.contract.records import SystemRow
from loom_core.contract.types import Json
from loom_core.run.absent import absence

Tone: TypeAlias = Literal["", "worse", "better", "quiet"]
COSTS = ("bounds", *beside.HEADS, "kept", "KV held", "TTFT", "TPOT", "peak", "recall", "rewriting")


class Cell(NamedTuple):
    """A text and how it is toned: a significant loss, a significant gain, or something of less weight."""

    text: str
    tone: Tone = ""


@dataclass
class Table:
    """A title, column heads (the first `n_left` are left-aligned), rows, and notes below."""

    title: str
    heads: Sequence[str]
    rows: list[list[Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_left: int = 1


def labels(arm: Mapping[str, Json]) -> str:
    """What an arm declares, in words: real or simulated savings, whether the question steers it."""
    if arm["baseline"]:
        return "baseline"
    words = {"real": "real", "simulated": "simulated", "none": "saves nothing"}[arm["saves"]]
    return words + (", query-aware" if arm["query_aware"] else "")


def short_labels(arm: Mapping[str, Json]) -> str:
    """The labels as letters: R real or S simulated savings, Q steered by the question."""
    return {"real": "R", "simulated": "S", "none": ""}[arm["saves"]] + ("Q" if arm["query_aware"] else "")


ALONE = "°: its own 95 % interval excludes 0; after Holm's correction it is not a finding"
"""What the mark ° says, wherever it stands."""


def mark(delta: Mapping[str, Any] | None) -> str:
    """* where a difference is one after Holm's correction, ° where its interval and test alone exclude 0, else none."""
    if not delta or delta.get("significant"):
        return "*" if delta else ""
    low, high = delta.get("low"), delta.get("high")
    return "°" if low is not None and high is not None and not low <= 0 <= high else ""


def any_alone(report: Report) -> bool:
    """Whether ° stands at a primary difference of the report's tables."""
    rows = (row for name in ("totals", "cells") for row in report[name] if row["scores"])
    return any(mark(row["scores"][0]["delta"]) == "°" for row in rows)


def _tone(delta: Mapping[str, Json] | None) -> Tone:
    if not delta or not delta["significant"] or delta["within_noise"]:
        return "quiet" if delta and delta["within_noise"] else ""
    return "better" if delta["n_better"] > delta["n_worse"] else "worse"


def delta_cell(delta: Mapping[str, Json] | None, span: float) -> Cell:
    """A difference to the baseline with its `mark`."""
    if delta is None:
        return Cell("")
    return Cell(text.signed(delta["value"], span) + mark(delta), _tone(delta))


def headline(report: Report, task: ReportTask, *, wide: bool = False) -> Table:
    """Arms with score, difference and cost over all levels of a task. wide: more columns than a terminal has."""
    heads = ["arm", "score", "95 % CI", "bounds", "Δ dense", *beside.HEADS]
    heads += ["kept", "KV held", "TTFT", "TPOT", "recall", "rewriting"]
    if wide:
        heads[5:5] = ["Δ 95 % CI", "p (Holm)"]
        heads[1:1] = ["savings", "n"]
        heads += ["peak"]
    table = Table(f"{task['name']} · {task['primary'] or 'no metric'}", heads, n_left=2 if wide else 1)
    arms = {arm["name"]: arm for arm in report["arms"]}
    called = beside.has_strategy(report)
    for row in rows_of(report["totals"], task["name"]):
        table.rows.append(_headline_row(row, arms[row["arm"]], task["span"], wide, called=called))
    _drop_unknown(table)
    table.notes += list(_headline_notes(report, task))
    table.notes += [beside.BOUNDS_NOTE] if "bounds" in table.heads else []
    table.notes += [beside.CALLS_NOTE] if beside.HEADS[0] in table.heads else []
    return table


def _drop_unknown(table: Table) -> None:
    """Leave out cost columns that no arm has, e.g. KV bytes where a server does not tell them."""
    columns = [i for i, head in enumerate(table.heads) if head in COSTS]
    unknown = {i for i in columns if all(row[i].text == text.NONE for row in table.rows)}
    table.heads = [head for i, head in enumerate(table.heads) if i not in unknown]
    table.rows = [[cell for i, cell in enumerate(row) if i not in unknown] for row in table.rows]


def _headline_row(
    row: Mapping[str, Any], arm: Mapping[str, Json], span: float, wide: bool, *, called: bool
) -> list[Cell]:
    score, cost = (row["scores"] or [{}])[0], row["cost"]
    delta, kv = score.get("delta"), cost["kv"] or {}
    marks = f" [{short_labels(arm)}]" if short_labels(arm) and not wide else ""
    cells = [
        Cell(text.one_line(row["arm"]) + marks),
        Cell(text.score(score.get("score"), span)),
        Cell(text.interval(score.get("low"), score.get("high"), span), "quiet"),
        Cell(beside.bounds(score, span)),
        delta_cell(delta, span),
        *map(Cell, beside.calls(row) if called else [text.NONE] * len(beside.HEADS)),
        Cell(text.share(kv.get("kept"))),
        Cell(text.byte_count(kv.get("bytes_held"))),
        _time(cost, "seconds_to_first_token"),
        _time(cost, "seconds_per_token"),
        Cell(rewritten.recall(row)),
        Cell(rewritten.seconds(row)),
    ]
    if wide:
        more = delta or {}
        cells[5:5] = [
            Cell(text.interval(more.get("low"), more.get("high"), span, sign=True) if delta else "", "quiet"),
            Cell(text.p_value(more.get("p_holm")) if delta else ""),
        ]
        cells[1:1] = [Cell(labels(arm), "quiet"), Cell(answered(row, score))]
        cells += [Cell(text.byte_count(cost["peak_bytes"]))]
    return cells


def _time(cost: Mapping[str, Json], name: str) -> Cell:
    """A time; ~ where arms ran under different conditions, so that it must not be compared."""
    shown = text.duration(cost[name])
    return Cell(
        shown if cost["comparable"] or shown == text.NONE else f"~{shown}", "" if cost["comparable"] else "quiet"
    )


def answered(row: Mapping[str, Json], score: Mapping[str, Json]) -> str:
    """The denominator: scored answers, "of" the planned ones where they are not all."""
    n = score.get("n", 0)
    return str(n) if n == row["n_planned"] else f"{n} of {row['n_planned']}"


def _headline_notes(report: Report, task: ReportTask) -> Iterator[str]:
    totals = rows_of(report["totals"], task["name"])
    if task.get("unavailable"):
        yield text.one_line(absence(task))
        return
    ns = sorted({row["scores"][0]["n"] for row in totals if row["scores"]})
    if ns:
        lead = f"n = {ns[0]}" + (f" to {ns[-1]}" if len(ns) > 1 else "") + " scored answers an arm"
        yield lead + _failures(totals, "not asked" if report.get("anytime") else "missing")
    conditions = {(row["cost"]["batch"], row["cost"]["forked"]) for row in totals if row["cost"]["n_timed"]}
    for batch, forked in sorted(conditions):
        ns = sorted({row["cost"]["n_timed"] for row in totals if row["cost"]["n_timed"]})
        over = f"times: medians over {ns[-1]} questions that all arms answered" if len(ns) == 1 else "times: medians"
        shared = max((row["cost"].get("seconds_shared") or 0.0 for row in totals), default=0.0)
        once = f"; shared tokens were read before, once for all questions on them (up to {text.duration(shared)})"
        yield f"{over}, batch {batch}" + (once if forked else "")
    if task["detectable_loss"] is not None:
        loss = text.score(task["detectable_loss"], task["span"])
        yield f"{task['n_pairs']} pairs find a pure loss of {loss} in 4 of 5 cases (exact McNemar, before Holm)"
    noise = next((row["scores"][0]["noise"] for row in totals if row["scores"] and row["scores"][0]["noise"]), None)
    if noise:
        spread = text.score(noise["spread"], task["span"])
        yield f"noise: {noise['repeats']} repeats of the baseline differ by {spread}; smaller differences are greyed"


def _failures(totals: Sequence[Mapping[str, Any]], missing: str) -> str:
    names = {"n_error": "failed", "n_missing": missing, "n_skipped": "skipped", "n_truncated": "truncated"}
    names["n_empty"] = "empty"
    counts = {word: sum(row[name] for row in totals) for name, word in names.items()}
    return "".join(f", {n} {word}" for word, n in counts.items() if n)


def by_level(report: Report, task: ReportTask) -> Table | None:
    """Arms × levels of a task; None where there is one level only."""
    levels = [level["level"] for level in task["levels"]]
    if len(levels) < 2:
        return None
    held = {row["arm"]: row for row in report["effective_lengths"] if row["task"] == task["name"]}
    table = Table(f"{task['name']} by length", ["arm", *levels, *(["holds to"] if held else [])])
    for arm in report["arms"]:
        row = [Cell(text.one_line(arm["name"]))]
        for level in levels:
            found = rows_of(report["cells"], task["name"], arm=arm["name"], level=level)
            score = found[0]["scores"][0] if found and found[0]["scores"] else None
            delta = score["delta"] if score else None
            shown = text.score(score["score"] if score else None, task["span"]) + mark(delta)
            row.append(Cell(shown, _tone(delta)))
        if held:
            row.append(Cell(effective(held.get(arm["name"]))))
        table.rows.append(row)
    if held:
        table.notes.append("holds to: the longest length that keeps 85 % of dense at the shortest; ≥: none longer")
    return table


def effective(row: Mapping[str, Json] | None) -> str:
    """An effective length: ≥ where no longer level was measured, ! where a shorter level falls below."""
    if row is None or row["level"] is None:
        return "none" if row and row["reference"] else text.NONE
    return ("≥ " if row["at_least"] else "") + str(row["level"]) + (" !" if row["gap"] else "")


def overview(report: Report) -> Table | None:
    """Arms × tasks; None for a single task."""
    tasks = [task for task in report["tasks"] if not task.get("unavailable")]
    if len(tasks) < 2:
        return None
    metrics, owners = {task["primary"] for task in tasks}, {task["name"].partition(":")[0] for task in tasks}
    # What all columns share stands in the title: columns stay narrow.
    names = [task["name"].partition(":")[2] if len(owners) == 1 else task["name"] for task in tasks]
    heads = [
        name if len(metrics) == 1 else f"{name} · {task['primary']}" for name, task in zip(names, tasks, strict=True)
    ]
    shared = [*(owners if len(owners) == 1 else ()), *(metrics if len(metrics) == 1 else ())]
    table = Table(" · ".join(["all tasks", *map(str, shared)]), ["arm", *heads])
    for arm in report["arms"]:
        row = [Cell(text.one_line(arm["name"]))]
        for task in tasks:
            found = rows_of(report["totals"], task["name"], arm=arm["name"])
            score = found[0]["scores"][0] if found and found[0]["scores"] else {}
            shown, delta = text.score(score.get("score"), task["span"]), delta_cell(score.get("delta"), task["span"])
            row.append(Cell(f"{shown} ({delta.text})" if delta.text else shown, delta.tone))
        table.rows.append(row)
    return table


def every_cell(report: Report) -> Table:
    """Task × level × arm × metric, with denominators, difference and cost."""
    heads = ["task", "level", "arm", "metric", "score", "95 % CI", "n", "failed", "missing", "unscored", "skipped"]
    heads += ["truncated", "Δ dense", "Δ 95 % CI", "p", "p (Holm)", "flag", "kept", "KV held", "TTFT", "TPOT", "peak"]
    heads += ["recall", "rewriting", "bounds", *beside.HEADS]
    table = Table("all cells", heads, n_left=4)
    spans = {task["name"]: task["span"] for task in report["tasks"]}
    for row in report["cells"]:
        cost, kv = row["cost"], row["cost"]["kv"] or {}
        for score in row["scores"]:
            span, delta = spans[row["task"]], score["delta"]
            more: Mapping[str, Any] = delta or {}
            counts = [row["n_error"], row["n_missing"], score["n_unscored"], row["n_skipped"], row["n_truncated"]]
            table.rows.append(
                [
                    *(Cell(text.one_line(str(v))) for v in (row["task"], row["level"], row["arm"], score["metric"])),
                    Cell(text.score(score["score"], span)),
                    Cell(text.interval(score["low"], score["high"], span), "quiet"),
                    Cell(str(score["n"])),
                    *(Cell(str(n), "" if n else "quiet") for n in counts),
                    delta_cell(delta, span),
                    Cell(text.interval(more.get("low"), more.get("high"), span, sign=True) if delta else "", "quiet"),
                    Cell(text.p_value(more.get("p")) if delta else ""),
                    Cell(text.p_value(more.get("p_holm")) if delta else ""),
                    Cell(score["flag"] or "", "quiet"),
                    Cell(text.share(kv.get("kept"))),
                    Cell(text.byte_count(kv.get("bytes_held"))),
                    _time(cost, "seconds_to_first_token"),
                    _time(cost, "seconds_per_token"),
                    Cell(text.byte_count(cost["peak_bytes"])),
                    *map(Cell, (rewritten.recall(row), rewritten.seconds(row), beside.bounds(score, span))),
                    *map(Cell, beside.calls(row)),
                ]
            )
    return table


def flat_rows(report: Report) -> Iterator[dict[str, Json]]:
    """Every cell and total as one flat record a metric: numbers unrounded, for CSV."""
    for row in [*report["cells"], *report["totals"]]:
        cost, kv = row["cost"], row["cost"]["kv"] or {}
        for score in row["scores"]:
            delta: Mapping[str, Any] = score["delta"] or {}
            yield {
                "task": row["task"],
                "level": "(all)" if row["level"] is None else row["level"],
                "arm": row["arm"],
                **{key: score[key] for key in ("metric", "version", "score", "low", "high", "interval", "n")},
                "n_unscored": score["n_unscored"],
                **{key: row[key] for key in ("n_planned", "n_error", "n_missing", "n_skipped", "n_truncated")},
                "n_empty": row["n_empty"],
                "tokens_dropped": row["tokens_dropped"],
                "length": row["length"],
                "flag": score["flag"],
                **{
                    f"delta_{key}": delta.get(key) for key in ("value", "low", "high", "p", "p_holm", "test", "n_pairs")
                },
                "significant": delta.get("significant"),
                **{
                    key: cost[key]
                    for key in ("seconds_to_first_token", "seconds_per_token", "seconds", "batch", "forked")
                },
                "times_comparable": cost["comparable"],
                "peak_bytes": cost["peak_bytes"],
                **{f"kv_{key}": kv.get(key) for key in ("bytes_held", "bytes_dense", "kept", "tokens_held")},
                **{f"kv_{key}": kv.get(key) for key in ("tokens_asked", "kept_asked", "bytes_asked")},
                **rewritten.flat(row),
                **beside.flat(row, score),
            }


def to_csv(report: Report) -> str:
    """Every cell and total as CSV with unrounded numbers. A text that a spreadsheet would run gets a leading quote."""
    rows = list(flat_rows(report))
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain_text(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def _plain_text(value: Json) -> Json:
    if not isinstance(value, str):
        return value
    value = text.visible(value)
    return "'" + value if value[:1] in ("=", "+", "-", "@", "\t") else value


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "Δ": r"$\Delta$"}
_LATEX |= {"−": "$-$", "–": "--", "≥": r"$\geq$", "·": r"$\cdot$", "µ": r"$\mu$", "±": r"$\pm$", "×": r"$\times$"}
_LATEX |= {character: "\\" + character for character in "&%$#_{}"}


def latex_text(value: str) -> str:
    """A text with everything escaped that LaTeX would act on."""
    return "".join(_LATEX.get(character, character) for character in text.visible(value))


def to_latex(report: Report) -> str:
    """One booktabs table a task: headline, and scores by length. Needs `\\usepackage{booktabs}`."""
    return "\n".join(
        _latex_table(t) for task in report["tasks"] for t in (headline(report, task), by_level(report, task)) if t
    )


def _latex_table(table: Table) -> str:
    def line(texts: Sequence[str]) -> str:
        return " & ".join(latex_text(value) for value in texts) + r" \\"

    columns = "l" * table.n_left + "r" * (len(table.heads) - table.n_left)
    rows = [line([cell.text for cell in row]) for row in table.rows]
    caption = latex_text(". ".join([table.title, *table.notes]))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            line(list(table.heads)),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{caption}}}",
            r"\end{table}",
            "",
        ]
    )


def who(report: Report) -> str:
    """The model and its server; of a study those of every system."""
    one: SystemRow = {"name": "", "model": report["model"]["name"], "server": report["server"]["name"]}
    return "; ".join(f"{row['model']} on {row['server']}" for row in report.get("systems") or [one])
