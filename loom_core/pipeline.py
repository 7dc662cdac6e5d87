"""A run from its config to its report: prepare, generate, score, report. Starts it, continues it, or refuses.

The run folder is named by what is asked, so the same command continues the same run. Knows stages, no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from loom_core.contract.errors import RunError, nearest
from loom_core.contract.keys import digest, plain
from loom_core.contract.records import Plan
from loom_core.contract.types import Json
from loom_core.data.access import DataDir
from loom_core.registry.plugins import Catalog
from loom_core.run import identity, manifest as manifests
from loom_core.run.absent import refusals, refused_arm
from loom_core.run.config import RunConfig, difference
from loom_core.run.executors import Executor
from loom_core.run.job_source import job_source
from loom_core.run.placement import check, place
from loom_core.run.plan import make_plan
from loom_core.run.reporting import reporter
from loom_core.run.runner import Outcome, Progress, Runner
from loom_core.run.selection import Selection, select
from loom_core.run.store import ANEW, RunFolder, read_json
from loom_core.run.trust import require
from loom_core.run.writing import set_torn_tail_aside, write_json
from loom_core.score.scoring import score_run

RUNS = Path("runs")


@dataclass
class Result:
    """What a run came to. report: what the installed run report wrote (`run.reporting`)."""

    folder: RunFolder
    outcome: Outcome
    report: dict[str, Json]

    @property
    def exit_code(self) -> int:
        """0 when every planned job ended and no task or arm was refused, else 3."""
        return 0 if self.outcome.complete and not self.refused else 3

    @property
    def refused(self) -> list[str]:
        """The arms and tasks that were refused, each with its reason."""
        return refusals(self.report)


class Outcomes(Protocol):
    """What one run or several together came to, as `loom run` tells it."""

    folder: RunFolder
    outcome: Outcome
    report: dict[str, Json]

    @property
    def exit_code(self) -> int:
        """0 when every planned job ended and no task or arm was refused, else 3."""

    @property
    def refused(self) -> list[str]:
        """The arms and tasks that were refused, each with its reason."""


class RunFile(Protocol):
    """A TOML file that asks for more than one run (hook `loom_run_file`)."""

    @property
    def systems(self) -> Mapping[str, RunConfig]:
        """The runs by name, in the order of the file."""

    def check(self, catalog: Catalog) -> None:
        """Raises UsageError where it cannot be meant."""

    def run(self, catalog: Catalog, command: list[str], progress: Progress) -> Outcomes:
        """Run all of it, up to one report."""


def run(config: RunConfig, catalog: Catalog, command: list[str], progress: Progress) -> Result:
    """Start or continue the run that this config asks for, up to its report."""
    selection = select(config, catalog)
    placement = place(config)
    executor: Executor = catalog.make(catalog.executors.get(config.executor))
    executor.check(placement)
    report = reporter(catalog)
    environment = check(selection, placement)
    folder = RunFolder(Path(config.out)) if config.out else default_folder(selection, progress.note)
    with folder.writing():
        plan = prepare(folder, selection, command)
        if torn := set_torn_tail_aside(folder.responses):
            progress.note(f"a torn last line of {torn} bytes was set aside; its question is asked again")
        catalog.observe("loom_run_started", folder=folder.path, manifest=read_json(folder.manifest))
        jobs = job_source(folder, selection, progress.note)
        _refuse_lost_jobs(folder, jobs.total, plan["n_jobs"])
        outcome = Runner(folder, selection, plan["model"]["digest"], progress, jobs, placement, executor).run()
        _remember(folder, outcome, environment)
        score_run(folder, selection, note=progress.note)
        result = Result(folder, outcome, report.write(folder))
        summary = {"planned": outcome.planned, "ended": outcome.ended, "failed": outcome.failed}
        catalog.observe("loom_run_ended", folder=folder.path, summary=summary)
    return result


def _refuse_lost_jobs(folder: RunFolder, found: int, planned: int) -> None:
    """Raise RunError where the file of jobs holds other than what was planned: the rest would be passed over."""
    if found != planned:
        raise RunError(
            "the planned jobs cannot be read",
            where=str(folder.jobs),
            why=f"it holds {found:,} of the {planned:,} jobs that plan.json counts",
            hint=ANEW,
        )


def prepare(folder: RunFolder, selection: Selection, command: list[str]) -> Plan:
    """The plan of a run folder: made now, or read and checked against the config. Refuses another configuration."""
    if folder.prepared:
        plan: Plan = read_json(folder.plan)
        if plan.get("config_digest") != selection.digest:
            raise RunError(
                "this run folder was made by another configuration",
                where=str(folder.path),
                why="; ".join(difference(stored_config(folder), selection.config)) or "its server options differ",
                hint=f"choose another folder with --out, or continue it as it is: loom run {folder.path}",
            )
        if changed := identity.changes(plan, selection):
            raise RunError(
                "what this run asks has changed since it was planned",
                where=str(folder.path),
                why="; ".join(changed),
                hint="ask again in another folder (--out); to continue this one, install what it was planned with. "
                f"Its answers can still be scored and reported: loom score {folder.path}",
            )
        card = selection.describe()
        if card.digest != plan["model"]["digest"]:
            raise RunError(
                "the model changed since this run began",
                where=card.path,
                why=f"digest {card.digest[:12]}…, the run was made with {plan['model']['digest'][:12]}…",
                hint="choose another folder with --out",
            )
        return plan
    if not folder.manifest.exists() or not _is_manifest(read_json(folder.manifest)):
        folder.refuse_foreign()
    data = open_data(selection.config)
    write_json(folder.manifest, manifests.build(selection, command))
    try:
        plan = make_plan(selection, selection.describe(), data, folder)
    except BaseException:
        folder.discard()
        raise
    write_json(folder.manifest, {**read_json(folder.manifest), "data": plain(data.used())})
    return plan


def open_data(config: RunConfig) -> DataDir:
    """The data of a run: mirror folder, cache, offline or not."""
    return DataDir.from_environment(config.data_dir, config.offline or None)


def continued_config(
    folder: RunFolder, given: Mapping[str, Any], catalog: Catalog, *, trusted: bool = False, asks: bool = True
) -> RunConfig:
    """The config of an existing run folder with what this command line says. A folder may come from anybody: what
    reaches beyond it must be this user's own (`trust.require`), unless the user takes it as it is (trusted). asks: see
    there.
    """
    config = stored_config(folder).merged(given, "command line")
    if not trusted:
        require(config, given.keys(), read_json(folder.manifest), catalog, where=str(folder.path), asks=asks)
    return config


def stored_config(folder: RunFolder) -> RunConfig:
    """The config of an existing run folder; raises RunError when it is none."""
    record = read_json(folder.manifest) if folder.manifest.exists() else {}
    if isinstance(record, dict) and isinstance(systems := record.get("systems"), dict):
        raise RunError(
            "this folder joins the systems of a study; each of them is a run of its own",
            where=str(folder.path),
            why="its answers were asked by " + ", ".join(str(folder.path / name) for name in systems),
            hint="name one of those folders; the whole study goes on with `loom run STUDY.toml`",
        )
    if not _is_manifest(record):
        why = "its manifest.json is not loom's" if record else "it has no manifest.json"
        siblings = folder.path.parent.glob("*/manifest.json")
        known = [str(path.parent) for path in siblings if path.parent != folder.path]
        raise RunError(
            "not a run folder",
            where=str(folder.path),
            why=why if folder.path.exists() else "it does not exist",
            hint=nearest(str(folder.path), known) if known else "loom run starts one; runs are kept below runs/",
        )
    return RunConfig.from_json(record["config"])


def _is_manifest(record: Json) -> bool:
    """True for the manifest of a run, as far as it is needed to continue one."""
    return isinstance(record, dict) and isinstance(record.get("config"), dict)


def default_folder(selection: Selection, note: Callable[[str], None]) -> RunFolder:
    """The folder of a run whose user named none: named by what is asked, so that the same command finds it again.

    Where a plugin or a described benchmark changed since that folder was planned, a folder of its own is taken: the
    earlier answers stay as they are, and none of them stands for a question that was not asked.
    """
    folder = RunFolder(RUNS / default_name(selection))
    if not folder.prepared:
        return folder
    plan = read_json(folder.plan)
    if plan.get("config_digest") != selection.digest or not (changed := identity.changes(plan, selection)):
        return folder
    note(f"{folder.path} was planned with other versions ({'; '.join(changed)}): this is a new run")
    return RunFolder(folder.path.with_name(f"{folder.path.name}-{digest(identity.installed(selection))[:8]}"))


def default_name(selection: Selection) -> str:
    """A readable name, unique to what is asked: benchmarks, model and eight digits of the digest."""
    benchmarks = "-".join(dict.fromkeys(chosen.name for chosen in selection.chosen))
    text = manifests.redact(f"{benchmarks}-{selection.model_name}-{selection.digest[:8]}", manifests.secrets())
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def _remember(folder: RunFolder, outcome: Outcome, environment: dict[str, Json] | None) -> None:
    """Add what happened to the manifest: workers, deaths, damage. Earlier passes stay."""
    record = read_json(folder.manifest)
    record["workers"] = [*record.get("workers", []), *outcome.workers]
    if environment is not None:
        record["environments"] = [*record.get("environments", []), environment]
    record["events"] = [*record.get("events", []), *outcome.events]
    rows = [refused_arm(name, error) for name, error in outcome.refused.items()]
    record["refused_arms"] = manifests.redacted(rows, manifests.secrets())
    write_json(folder.manifest, record)
