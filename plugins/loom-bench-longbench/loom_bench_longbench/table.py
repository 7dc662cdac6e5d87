"""LongBench's official tables: means by task, by length bucket for `_e`, and the second paper's groups.

Source: THUDM/LongBench, LongBench/eval.py (mean times 100, two decimals; 0-4k, 4-8k, 8k+ by words); the groups and
their average over the 15 tasks: table 2 of arXiv 2407.01527 (one decimal).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from loom_bench_longbench.settings import BUCKETS, EXTENDED, GROUPS, LAST_BUCKET, SETTINGS, base
from loom_core.api import Graded, Line, by_task, macro_line, mean_line

LEVELS = (*(name for _, name in BUCKETS), LAST_BUCKET)
MEAN = "mean of task scores"


def table(rows: Sequence[Graded], *, grouped: bool) -> list[Line]:
    """A line a task; an `_e` task has one a bucket. The authors of LongBench define no mean over tasks."""
    lines: list[Line] = []
    for task, found in by_task(rows).items():
        metric = SETTINGS[base(task)].metric
        if not task.endswith(EXTENDED):
            lines.append(mean_line(task, metric, found, of_sum=True))
            continue
        for level in LEVELS:
            if members := [row for row in found if row.sample.level == level]:
                lines.append(mean_line(f"{task} {level}", metric, members))
    return lines + _groups(lines) if grouped else lines


def _groups(lines: Sequence[Line]) -> list[Line]:
    """The mean of each group's tasks, and the average over all 15."""
    known = {line.name: line for line in lines}
    found = []
    for group, tasks in GROUPS.items():
        if members := [known[task] for task in tasks if task in known]:
            found.append(macro_line(group, MEAN, members, of=len(tasks), digits=1))
    of = len(list(chain.from_iterable(GROUPS.values())))
    return [*found, macro_line("average", MEAN, lines, of=of, digits=1)] if lines else found
