"""L-Eval's metrics by task, and its official table. Knows graded samples.

Source: OpenLMLab/LEval@cd34b05, Evaluation/auto_eval.py: means times 100, four decimals; the three topics of
topic_retrieval_longchat and the two judgements of sci_fi apart, and the mean of what is printed for them; for summaries
the cube root of the product of the corpus means of ROUGE-1, -2 and -L. No mean over tasks is defined there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod

from loom_bench_leval.plugin import F1
from loom_core.api import Graded, Line, by_task, macro_line, mean_line

SCI_FI = {"loyalty": "leval_loyalty", "fact": "leval_fact"}
ROUGE_PARTS = {"rouge1": "leval_rouge1", "rouge2": "leval_rouge2", "rougeL": "leval_rouge_l"}
GEOMETRIC = "geometric mean of ROUGE-1, -2, -L"
_EXAM: Mapping[str, tuple[str, ...]] = {
    "coursera": ("leval_choices",),
    "quality": ("leval_choice",),
    "tpo": ("leval_choice",),
    "gsm100": ("leval_math",),
    "codeU": ("leval_code",),
    "topic_retrieval_longchat": ("leval_topic",),
    "sci_fi": tuple(SCI_FI.values()),
}
DIGITS = 4
TOPICS = ("first topic", "second topic", "third topic")
STAND_IN = "loom's own wording, not the authors'"


def metric_names(task: str) -> tuple[str, ...]:
    """The metrics of a task, the primary one first."""
    if task in _EXAM:
        return _EXAM[task]
    # ROUGE-L leads: the score of a task is not a mean of its samples.
    return ("leval_f1",) if task in F1 else ("leval_rouge_l", "leval_rouge1", "leval_rouge2")


def geometric_mean(values: Iterable[float]) -> float:
    """The authors' score of a summary task."""
    found = tuple(values)
    return float(prod(found) ** (1 / len(found)))


def table(rows: Sequence[Graded]) -> list[Line]:
    """The lines of every task among the rows."""
    return [line for task, found in by_task(rows).items() for line in _lines(task, found)]


def _lines(task: str, rows: Sequence[Graded]) -> list[Line]:
    note = STAND_IN if any(row.sample.meta.get("wording") == "loom" for row in rows) else ""
    names = metric_names(task)
    if task == "sci_fi":
        parts = [mean_line(f"{task} {part}", metric, rows, digits=DIGITS, note=note) for part, metric in SCI_FI.items()]
        return [*parts, _average("average of fact and loyalty", task, parts, len(SCI_FI))]
    if task == "topic_retrieval_longchat":
        of_topic = [(name, [r for r in rows if r.sample.meta.get("topic") == i]) for i, name in enumerate(TOPICS)]
        parts = [
            mean_line(f"{task} {name}", names[0], members, digits=DIGITS, note=note)
            for name, members in of_topic
            if members
        ]
        return [*parts, _average("average of the three topics", task, parts, len(TOPICS))]
    if len(names) == 1:
        return [mean_line(task, names[0], rows, digits=DIGITS, note=note)]
    lines = [mean_line(task, metric, rows, digits=DIGITS, note=note) for metric in ROUGE_PARTS.values()]
    values = [line.value for line in lines if line.value is not None]
    whole = geometric_mean(values) if len(values) == len(lines) else None
    n, missing = lines[0].n, lines[0].missing
    made = Line(
        name=task, metric=GEOMETRIC, value=whole, n=n, missing=missing, digits=DIGITS, note=note, rows=list(rows)
    )
    return [*lines, made]


def _average(name: str, task: str, parts: Sequence[Line], of: int) -> Line:
    """The mean of what is printed for the parts of a task."""
    line = macro_line(f"{task} {name}", "mean", parts, of=of, digits=DIGITS)
    note = "; ".join(text for text in (parts[0].note if parts else "", line.note) if text)
    return replace(line, note=note)
