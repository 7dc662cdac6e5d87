"""Where a run's jobs come from: all of them at once, or as an installed rule hands them out (hook `loom_job_sources`).

Knows the run folder; knows no worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from loom_core.contract.errors import UsageError
from loom_core.contract.types import Job
from loom_core.run.selection import Selection
from loom_core.run.store import Responses, RunFolder, read_json
from loom_core.run.writing import write_json

SETTINGS = ("budget", "until")
"""Settings of a run that say how far it asks; each needs a job source that serves it."""


class JobSource(Protocol):
    """What hands jobs to a runner. total: jobs that are planned. more: False once `next` gives nothing new."""

    total: int
    more: bool

    def next(self, recorded: Responses) -> list[Job]:
        """The jobs to do now, when all that were given before have ended or failed; none when it is over."""

    def asked(self) -> Sequence[Job]:
        """Every job that the run was asked for so far: those it is measured by."""

    def end(self) -> None:
        """The pass is over, finished or not."""


class Everything:
    """All planned jobs at once."""

    def __init__(self, folder: RunFolder) -> None:
        self._jobs = list(folder.read_jobs())
        self.total, self.more = len(self._jobs), True

    def next(self, recorded: Responses) -> list[Job]:
        """What has not ended; then nothing."""
        left = [job for job in self._jobs if not recorded.ended(job.key)] if self.more else []
        self.more = False
        return left

    def asked(self) -> Sequence[Job]:
        """The whole plan."""
        return self._jobs

    def end(self) -> None:
        """Nothing to remember."""


def job_source(folder: RunFolder, selection: Selection, note: Callable[[str], None]) -> JobSource:
    """The source that the config asks for. Raises UsageError where no installed one serves its settings."""
    asked = [name for name in SETTINGS if getattr(selection.config, name) is not None]
    if not asked:
        _give_up(folder)
        return Everything(folder)
    for found in selection.catalog.job_sources:
        if set(asked) <= set(found.spec.serves):
            made: JobSource = selection.catalog.make(found, folder, selection, note)
            return made
    raise UsageError(
        "no installed plugin asks in batches",
        where=", ".join(f"--{name}" for name in asked),
        hint="pip install loom-lab",
    )


def _give_up(folder: RunFolder) -> None:
    """A run that was steered before and now asks for everything is not a stratified subset any more."""
    manifest = read_json(folder.manifest)
    if manifest.get("anytime") and not manifest["anytime"].get("given_up"):
        manifest["anytime"]["given_up"] = True
        write_json(folder.manifest, manifest)
