"""Which jobs are left, and in which bundles they are handed out. Knows keys and lengths; runs nothing.

Whole context groups go together, the longest first; the arms of a chunk follow each other, so that a run that is cut
short has paired answers. A group is split only when it is larger than what is left divided by the workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from loom_core.contract.types import Job


@dataclass
class Bundle:
    """Jobs of one arm for one worker. attempts: deaths over it in a row. calls: recorded calls of unended jobs."""

    id: int
    arm: str
    jobs: list[Job]
    attempts: int = 0
    left: dict[str, Job] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.left = {job.key: job for job in self.jobs}


class Agenda:
    """The unfinished jobs of a run, in the order they are handed out."""

    def __init__(self, jobs: Iterable[Job], *, size: int, workers: int) -> None:
        groups: dict[str, list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.group, []).append(job)
        longest = {group: max(job.length for job in rows) for group, rows in groups.items()}
        self._groups = deque(groups[name] for name in sorted(groups, key=lambda name: (-longest[name], name)))
        self._ready: deque[Bundle] = deque()
        self._left, self._size, self._workers = sum(map(len, groups.values())), size, workers
        self._ids: Iterator[int] = iter(range(1, 1 << 62))

    def __len__(self) -> int:
        """Jobs not yet handed out."""
        return self._left

    def take(self) -> Bundle | None:
        """The next bundle; None when nothing is left."""
        if not self._ready:
            self._fill()
        if not self._ready:
            return None
        bundle = self._ready.popleft()
        self._left -= len(bundle.left)
        return bundle

    def give_back(self, bundle: Bundle) -> None:
        """Put what a dead worker left undone first in line.

        Where it had made no progress the rest is halved, so that one deadly job ends up alone.
        """
        jobs = list(bundle.left.values())
        stuck = len(jobs) == len(bundle.jobs) and not bundle.calls
        half = -(-len(jobs) // 2) if stuck else len(jobs)
        for part in reversed([jobs[start : start + half] for start in range(0, len(jobs), half)]):
            attempts = bundle.attempts + 1 if stuck else 0
            self._ready.appendleft(Bundle(next(self._ids), bundle.arm, part, attempts))
        self._left += len(jobs)

    def drop(self, arm: str) -> None:
        """Take out every job of an arm."""
        self._ready = deque(bundle for bundle in self._ready if bundle.arm != arm)
        groups = ([job for job in group if job.arm != arm] for group in self._groups)
        self._groups = deque(group for group in groups if group)
        self._left = sum(len(bundle.left) for bundle in self._ready) + sum(map(len, self._groups))

    def _fill(self) -> None:
        """Make bundles of the next chunk of groups: one for each arm, split where a share would be unfair."""
        by_arm: dict[str, list[Job]] = {}
        most = 0
        while self._groups and most < self._size:
            for job in self._groups.popleft():
                by_arm.setdefault(job.arm, []).append(job)
            most = max(len(jobs) for jobs in by_arm.values())
        share = max(1, -(-self._left // self._workers))
        for arm, jobs in by_arm.items():
            self._ready.extend(Bundle(next(self._ids), arm, part) for part in _shares(jobs, share))


def _shares(jobs: list[Job], most: int) -> Iterator[list[Job]]:
    """Whole groups, up to `most` jobs together; only a group that is larger than that is split."""
    share: list[Job] = []
    for _, group in groupby(jobs, key=lambda job: job.group):
        rows = list(group)
        if share and len(share) + len(rows) > most:
            yield share
            share = []
        while len(rows) > most:
            yield rows[:most]
            rows = rows[most:]
        share += rows
    if share:
        yield share
