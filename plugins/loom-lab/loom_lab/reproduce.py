"""A run made again from a folder or a bundle: the same questions of the same model, or a refusal.

Knows pipelines and stores; prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loom_report import ledger

from loom_core.contract.errors import RunError, UsageError
from loom_core.contract.records import Manifest
from loom_core.pipeline import Result, continued_config, prepare, run
from loom_core.registry.plugins import Catalog
from loom_core.run.runner import Progress
from loom_core.run.selection import select
from loom_core.run.settings_diff import Knob, differing, settings, shown
from loom_core.run.store import RunFolder, read_json

SHOWN = 8


@dataclass(frozen=True)
class Again:
    """A run made again. circumstances: how it was carried out differently (libraries, machine)."""

    result: Result
    circumstances: list[Knob]


def reproduce(
    before: RunFolder,
    given: Mapping[str, Any],
    catalog: Catalog,
    command: list[str],
    progress: Progress,
    *,
    trusted: bool = False,
) -> Again:
    """Run what a run asked again, into the folder `given["out"]`. given: settings to replace: where the model, the data
    and the folder are on this machine. What is asked is the bundle's; what reaches beyond it is this command line's, or
    is trusted (see `trust`).

    Raises RunError, before the model is asked anything, where the model, the data, the tasks, the methods or the
    prompts are not those of the first run, or where the answers of the first run cannot be read.
    """
    if not before.prepared:
        raise RunError("there is nothing to reproduce", where=str(before.path), why="it holds no plan.json")
    config = continued_config(before, {**HERE, **given}, catalog, trusted=trusted)
    _refuse_unreadable(before)
    selection = select(config, catalog)
    folder = RunFolder(Path(str(config.out)))
    if folder.path.resolve() == before.path.resolve():
        where, hint = str(folder.path), "choose another --out"
        raise UsageError("a run cannot be made again in its own folder", where=where, hint=hint)
    with folder.writing():
        prepare(folder, selection, command)
        knobs = _differing(before, folder)
        asked = [knob for knob in knobs if knob.asked]
        if asked:
            folder.discard()
            lines = [f"{k.group} {k.name}: {shown(k.first)[:60]} → {shown(k.second)[:60]}" for k in asked[:SHOWN]]
            more = [f"and {len(asked) - SHOWN} more"] if len(asked) > SHOWN else []
            raise RunError(
                "this would not be the same run",
                why="\n        ".join([*lines, *more]),
                hint="use the model, data and versions of the first run, or start a new run with `loom run`",
            )
    return Again(run(config, catalog, command, progress), [knob for knob in knobs if not knob.asked])


HERE: Mapping[str, Any] = {"python": None, "devices": (), "executor": "local", "data_dir": None, "offline": False}
"""How a run is carried out belongs to this machine, whatever the first one was."""


def _refuse_unreadable(before: RunFolder) -> None:
    """Raise RunError where there would be nothing to compare: before anything is run."""
    answered = ledger.read(before, read_json(before.plan))
    if not any(answer.state == "answered" for rows in answered.answers.values() for answer in rows):
        why = str(answered.damage) or "it records no answer to a planned question"
        raise RunError("there is nothing to compare with", where=str(before.path), why=why)


OWN = {("model", "name"), ("tasks", "distribution"), ("server", "distribution")}
"""Settings that may differ in a run made again: a name, and the version of a distribution (behaviour has its own)."""


def _differing(before: RunFolder, after: RunFolder) -> list[Knob]:
    """What differs between two prepared runs, but for names and what is known only after a run."""
    sides = []
    for folder in (before, after):
        manifest: Manifest = read_json(folder.manifest)
        manifest["workers"] = []
        sides.append(settings(read_json(folder.plan), manifest))
    return [knob for knob in differing(*sides) if (knob.group, knob.name.rpartition(".")[2]) not in OWN]
