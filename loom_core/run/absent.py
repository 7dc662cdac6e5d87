"""Tasks and arms of a run that are not asked: the words for it, and taking out what a refused task had already written.

Of a task two reasons: its data is *unavailable here*, or it is *refused* (its making, its prompts or the chat template
raised). An arm is refused by the server, when it is planned or when it is asked. Knows records of plans and the run
folder.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from loom_core.contract.errors import LoomError
from loom_core.contract.records import Manifest, Plan
from loom_core.contract.types import Json
from loom_core.run.store import RunFolder, read_lines
from loom_core.run.writing import to_line, whole_file


def absence(task: Mapping[str, Json]) -> str:
    """Why a task of a plan or report was not asked, in words; "" for one that was."""
    if not task.get("unavailable"):
        return ""
    return f"{'refused' if task.get('refused') else 'unavailable here'}: {task['unavailable']}"


def reason(error: LoomError) -> str:
    """What was raised, in one line without the next step."""
    return error.what + (f" ({error.where})" if error.where else "") + (f": {error.why}" if error.why else "")


def refused(tasks: Sequence[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """The refused tasks of a plan or report: a run with one is not complete."""
    return [task for task in tasks if task.get("refused")]


def refused_arm(name: str, error: LoomError) -> dict[str, Json]:
    """The row of a refused arm in a plan, a manifest or a report."""
    return {"name": name, "why": reason(error), "refused": error.to_json()}


def refused_arms(plan: Plan, manifest: Manifest) -> list[Json]:
    """The arms of a run that were refused when it was planned, and when it was last asked."""
    return [*(plan.get("refused_arms") or ()), *(manifest.get("refused_arms") or ())]


def refusals(report: Mapping[str, Json]) -> list[str]:
    """The arms and tasks of a report that were refused, each with its reason: a run with one is not complete."""
    arms = [f"arm {row['name']}: {row['why']}" for row in report.get("refused_arms", ())]
    return arms + [f"{task['name']}: {task['unavailable']}" for task in refused(report.get("tasks", ()))]


def drop(folder: RunFolder, tasks: Collection[str]) -> None:
    """Take the samples and jobs of these tasks out of a run folder, with the contexts that no other task has."""
    if not tasks:
        return
    kept: set[str] = set()
    with whole_file(folder.samples, encoding="ascii") as file:
        for _, row in read_lines(folder.samples):
            if row["task"] not in tasks:
                file.write(to_line(row))
                kept.update(part["stored"] for part in row["prompt"]["segments"] if part.get("stored"))
    before = RunFolder(folder.path)
    before.jobs = folder.jobs.with_suffix(".partial")
    os.replace(folder.jobs, before.jobs)
    folder.write_jobs(job for job in before.read_jobs() if job.task not in tasks)
    before.jobs.unlink()
    for path in folder.contexts.glob("*.gz"):
        if path.stem not in kept:
            path.unlink()
