"""L-Eval's metrics by task, and its official table. Knows graded samples.

Source: OpenLMLab/LEval, Evaluation/auto_eval.py: means times 100 for exams and F1, the three topics of
topic_retrieval_longchat and the two judgements of sci_fi apart; for summaries the cube root of the product of the
corpus means of ROUGE-1, -2 and -L. No mean over tasks is defined there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from loom_bench_leval.plugin import F1
from loom_core.contracts import Graded, Line
from loom_core.tables import by_task, mean_line

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
TOPICS = ("first topic", "second topic", "third topic")
STAND_IN = "loom's own wording, not the authors'"


def metric_names(task: str) -> tuple[str, ...]:
    """The metrics of a task, the primary one first."""
    if task in _EXAM:
        return _EXAM[task]
    # ROUGE-L leads: the score of a task is no mean of its samples.
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
        return [mean_line(f"{task} {part}", metric, rows, note=note) for part, metric in SCI_FI.items()]
    if task == "topic_retrieval_longchat":
        parts = [(name, [r for r in rows if r.sample.meta.get("topic") == i]) for i, name in enumerate(TOPICS)]
        return [mean_line(f"{task} {name}", names[0], members, note=note) for name, members in parts if members]
    if len(names) == 1:
        return [mean_line(task, names[0], rows, note=note)]
    lines = [mean_line(task, metric, rows, digits=4, note=note) for metric in ROUGE_PARTS.values()]
    values = [line.value for line in lines if line.value is not None]
    whole = geometric_mean(values) if len(values) == len(lines) else None
    n, missing = lines[0].n, lines[0].missing
    return [*lines, Line(name=task, metric=GEOMETRIC, value=whole, n=n, missing=missing, digits=4, note=note)]
