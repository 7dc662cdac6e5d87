"""Lines of official tables that many benchmarks share. Knows graded samples and means, no benchmark.

A table is a list of `contracts.Line`; what else it holds (harmonic means, effective lengths) is the benchmark's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import comb, fsum
from statistics import fmean

from loom_core.contract.protocols import Graded, Line


def mean_line(
    name: str,
    metric: str,
    rows: Iterable[Graded],
    *,
    scale: float = 100.0,
    digits: int = 2,
    note: str = "",
    of_sum: bool = False,
) -> Line:
    """`scale` times the mean of a metric over the rows; rows without a value are missing, and no value is None.

    of_sum: the sum is multiplied and then divided, as in the authors' program: where the result lies between two
    rounded figures (28.75 of 5.75 right in 20), the other order may give the lower one.
    """
    members = list(rows)
    found = [row.scored[metric].value if metric in row.scored else None for row in members]
    values = [value for value in found if value is not None]
    mean = None
    if values:
        mean = scale * fsum(values) / len(values) if of_sum else scale * fmean(values)
    return Line(
        name=name,
        metric=metric,
        value=mean,
        n=len(values),
        missing=len(found) - len(values),
        digits=digits,
        note=note,
        rows=members,
    )


def rows_of(lines: Iterable[Line]) -> list[Graded] | None:
    """The rows that lines are made of; None where one of them names none."""
    found: list[Graded] = []
    for line in lines:
        if line.rows is None:
            return None
        found += line.rows
    return found


def macro_line(name: str, metric: str, lines: Sequence[Line], *, of: int, digits: int = 2) -> Line:
    """The mean of lines as the authors print them (rounded); None where one of them has no value.

    of: how many lines the authors average; where fewer are there, the note says so.
    """
    values = [round(line.value, line.digits) for line in lines if line.value is not None]
    return Line(
        name=name,
        metric=metric,
        value=fmean(values) if values and len(values) == len(lines) else None,
        n=sum(line.n for line in lines),
        missing=sum(line.missing for line in lines),
        digits=digits,
        note="" if len(values) == of else f"mean of {len(values)} of {of}",
        rows=rows_of(lines),
    )


def by_task(rows: Sequence[Graded]) -> dict[str, list[Graded]]:
    """The rows of each task, tasks in the order they come."""
    found: dict[str, list[Graded]] = {}
    for row in rows:
        found.setdefault(row.task, []).append(row)
    return found


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased chance that one of k answers is right, given n answers of which some are: 1 - C(n-c, k) / C(n, k).

    Source: Chen et al. 2021, arXiv 2107.03374, equation 1. Raises ValueError where k answers cannot be drawn.
    """
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be computed from {correct} right answers of {n}")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def pass_at_k_line(name: str, metric: str, rows: Iterable[Graded], k: int, *, digits: int = 2) -> Line:
    """100 times the mean of pass@k over questions, whose repeats follow each other.

    A question with fewer than k answers that have a value is missing.
    """
    questions: list[dict[int, float | None]] = []
    before = None
    members = list(rows)
    for row in members:
        place = (row.task, row.sample.id)
        if place != before or row.repeat in questions[-1]:  # a resampled question may follow itself
            questions.append({})
        before = place
        scored = row.scored.get(metric)
        questions[-1][row.repeat] = scored.value if scored else None
    given = [[value for value in answers.values() if value is not None] for answers in questions]
    values = [pass_at_k(len(one), sum(value >= 1.0 for value in one), k) for one in given if len(one) >= k]
    mean = 100.0 * fmean(values) if values else None
    lost = len(given) - len(values)
    return Line(name=name, metric=metric, value=mean, n=len(values), missing=lost, digits=digits, rows=members)
