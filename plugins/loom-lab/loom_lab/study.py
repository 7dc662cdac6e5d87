"""One study over several systems: each a run of its own (another server, model or environment), one report of all.

A study file is a TOML of common settings with a table `[systems.NAME]` for each system. Every system keeps its own run
folder, with its own dense baseline; the joined folder beside them holds all answers, so that differences are paired
question by question. The first system's arms keep their names, those of the others are called NAME/ARM.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loom_report import files as report

from loom_core import pipeline
from loom_core.contract.errors import LoomError, RunError, UsageError
from loom_core.contract.keys import digest
from loom_core.contract.tomlfile import read_toml
from loom_core.contract.types import Job, Json
from loom_core.registry.plugins import Catalog
from loom_core.run.absent import refusals, refused_arms
from loom_core.run.config import RunConfig, with_templates
from loom_core.run.placement import check, place
from loom_core.run.runner import Outcome, Progress
from loom_core.run.selection import select
from loom_core.run.store import RunFolder, read_json, read_lines
from loom_core.run.writing import recording, to_line, whole_file, write_json


@dataclass(frozen=True)
class Study:
    """Systems by name, in the order of the file; `out` holds a folder for each, and the joined run."""

    out: Path
    systems: Mapping[str, RunConfig]

    def check(self, catalog: Catalog) -> None:
        """See `pipeline.RunFile`."""
        check_study(self, catalog)

    def run(self, catalog: Catalog, command: list[str], progress: Progress) -> Joined:
        """See `pipeline.RunFile`."""
        return run_study(self, catalog, command, progress)


@dataclass
class Joined:
    """What a study came to; `pipeline.Result` of all systems together. failed: why a system has no run, by name."""

    folder: RunFolder
    outcome: Outcome
    report: Any
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when every planned job of every system ended and no task or arm was refused, else 3."""
        return 0 if self.outcome.complete and not self.failed and not self.refused else 3

    @property
    def refused(self) -> list[str]:
        """The arms and tasks that were refused, each with its reason."""
        return refusals(self.report)


def read_study(path: Path, given: Mapping[str, Any]) -> Study | None:
    """The study in a TOML file; None where it has no table `systems`. given: settings of the command line, which win.

    Raises UsageError for a bad name or setting, naming its table.
    """
    try:
        values = read_toml(path)
    except (OSError, ValueError):
        return None  # said by the reader of plain study files
    tables = values.pop("systems", None)
    if tables is None:
        return None
    if not isinstance(tables, Mapping) or not tables:
        raise UsageError(
            "systems is not a table of tables", where=str(path), hint="write [systems.NAME] for each system"
        )
    named = RunConfig().merged({"out": values.pop("out", None)}, str(path)).out
    out = Path(given.get("out") or named or pipeline.RUNS / path.stem)
    systems = {}
    for name, table in tables.items():
        where = f"{path} [systems.{name}]"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or not isinstance(table, Mapping):
            raise UsageError("a system is a table under a plain name", where=where, hint="letters, digits, . _ -")
        if "out" in table:
            hint = f"write out once, above the systems: this one's folder is {out / name}"
            raise UsageError("a system cannot choose its folder", where=where, hint=hint)
        config = RunConfig().merged(with_templates(values, path), str(path)).merged(table, where)
        systems[name] = config.merged({**given, "out": str(out / name)}, "command line")
    return Study(out, systems)


def run_study(study: Study, catalog: Catalog, command: list[str], progress: Progress) -> Joined:
    """Run every system, one after the other, and report them together. A system that cannot run is told, not dropped.

    Raises UsageError before anything runs where a system is refused, and RunError where all failed.
    """
    check_study(study, catalog)
    done: dict[str, pipeline.Result] = {}
    failed: dict[str, str] = {}
    for name, config in study.systems.items():
        progress.note(f"system {name}")
        try:
            done[name] = pipeline.run(config, catalog, command, progress)
        except UsageError:
            raise
        except LoomError as error:
            failed[name] = "; ".join(line.strip() for line in str(error).splitlines())
            progress.note(f"system {name} did not run: {failed[name]}")
        if name in done and done[name].outcome.interrupted:
            break
    if not done:
        raise RunError("no system of the study could be run", where=str(study.out), why="; ".join(failed.values()))
    folder = RunFolder(study.out)
    with folder.writing():
        join(folder, {name: result.folder for name, result in done.items()}, command, failed)
        outcomes = [result.outcome for result in done.values()]
        total = Outcome(
            planned=sum(outcome.planned for outcome in outcomes),
            ended=sum(outcome.ended for outcome in outcomes),
            failed=sum(outcome.failed for outcome in outcomes),
            n_refused=sum(outcome.n_refused for outcome in outcomes),
            interrupted=any(outcome.interrupted for outcome in outcomes),
        )
        return Joined(folder, total, report.write(folder), failed)


def check_study(study: Study, catalog: Catalog) -> None:
    """Raises UsageError where a system cannot be meant, naming it, or where systems could not be reported together."""
    for name, config in study.systems.items():
        try:
            check(select(config, catalog), place(config))
        except UsageError as error:
            where = f"system {name}" + (f", {error.where}" if error.where else "")
            raise UsageError(error.what, where=where, why=error.why, hint=error.hint) from error
        if config.budget is not None or config.until is not None:
            raise UsageError(
                "a study of several systems is not asked by the clock",
                where=f"system {name}: {'until' if config.budget is None else 'budget'}",
                why="each system would be asked other questions, and their joined scores could not be corrected for it",
                hint="subset = N asks all of them the same N questions of each task",
            )
    if len({config.protocol for config in study.systems.values()}) > 1:
        hint = "run query-aware and context-only apart"
        raise UsageError("one study has one protocol", where=str(study.out), hint=hint)


def join(folder: RunFolder, members: Mapping[str, RunFolder], command: list[str], failed: Mapping[str, str]) -> None:
    """Write the joined run anew from its members. Raises RunError where they were asked different questions."""
    plans: dict[str, dict[str, Json]] = {name: read_json(member.plan) for name, member in members.items()}
    shutil.rmtree(folder.contexts, ignore_errors=True)
    with recording(folder.contexts):
        folder.contexts.mkdir(parents=True)
    _join_samples(folder, members)
    folder.write_jobs(_jobs(members))
    with whole_file(folder.responses, encoding="ascii") as file:
        for name, row in _rows(members, lambda member: member.responses):
            file.write(to_line({**row, "job": _key(name, row["job"]), "arm": _arm(name, row["arm"], members)}))
    metrics = {(m["name"], m["version"]) for plan in plans.values() for t in plan["tasks"] for m in t["metrics"]}
    for metric, version in sorted(metrics):
        with whole_file(folder.scores(metric, version), encoding="ascii") as file:
            for name, row in _rows(members, lambda member, m=metric, v=version: member.scores(m, v)):
                file.write(to_line({**row, "key": _key(name, row["key"])}))
    write_json(folder.official, _official(members))
    write_json(folder.unscored, _unscored(members))
    first = read_json(next(iter(members.values())).manifest)
    kept = {key: first.get(key) for key in ("loom", "created", "seed", "versions", "git", "hardware", "data")}
    systems = {name: {"folder": name, "config_digest": plan["config_digest"]} for name, plan in plans.items()}
    write_json(folder.manifest, {**kept, "command": command, "workers": [], "events": [], "systems": systems})
    write_json(folder.plan, _plan(plans, members, failed))


def _join_samples(folder: RunFolder, members: Mapping[str, RunFolder]) -> None:
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    with whole_file(folder.samples, encoding="ascii") as file:
        for name, row in _rows(members, lambda member: member.samples):
            place, content = (row["task"], row["id"]), digest([row["prompt"], row["references"]])
            first, known = seen.setdefault(place, (name, content))
            if known != content:
                raise RunError(
                    f"systems {first} and {name} were asked different questions",
                    where=f"sample {place[1]} of {place[0]}",
                    why="their tokenizers make other prompts of one length, or their data differ",
                    hint="each system has a report of its own in its folder; fixed levels make equal questions",
                )
            if first == name:
                file.write(to_line(row))
    for member in members.values():
        for context in member.contexts.iterdir():
            if not (target := folder.contexts / context.name).exists():
                _link(context, target)


def _link(source: Path, target: Path) -> None:
    """One file under two names where the file system allows it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _jobs(members: Mapping[str, RunFolder]) -> Iterator[Job]:
    for name, member in members.items():
        for job in member.read_jobs():
            yield Job(
                key=_key(name, job.key),
                sample=job.sample,
                task=job.task,
                arm=_arm(name, job.arm, members),
                repeat=job.repeat,
                group=job.group,
                length=job.length,
            )


def _rows(members: Mapping[str, RunFolder], file_of: Any) -> Iterator[tuple[str, dict[str, Json]]]:
    for name, member in members.items():
        path: Path = file_of(member)
        if path.exists():
            for _, row in read_lines(path):
                yield name, row


def _key(system: str, key: str) -> str:
    return f"{system}:{key}"


def _arm(system: str, arm: str, members: Mapping[str, RunFolder]) -> str:
    return arm if system == next(iter(members)) else f"{system}/{arm}"


def _official(members: Mapping[str, RunFolder]) -> dict[str, dict[str, Json]]:
    tables: dict[str, dict[str, Json]] = {}
    for name, member in members.items():
        for benchmark, arms in (read_json(member.official) if member.official.exists() else {}).items():
            tables.setdefault(benchmark, {}).update({_arm(name, arm, members): t for arm, t in arms.items()})
    return tables


def _unscored(members: Mapping[str, RunFolder]) -> dict[str, dict[str, int]]:
    """Why values are missing, by metric, the systems' counts added up."""
    reasons: dict[str, Counter[str]] = {}
    for member in members.values():
        for metric, counts in (read_json(member.unscored) if member.unscored.exists() else {}).items():
            reasons.setdefault(metric, Counter()).update(counts)
    return {metric: dict(counts.most_common()) for metric, counts in reasons.items()}


def _judged(members: Mapping[str, RunFolder]) -> Iterator[str]:
    for name, member in members.items():
        if member.judge.exists() and (judge := read_json(member.judge)).get("calls"):
            yield f"system {name}: judged by {judge['judge']}, {judge['calls']} calls"


def _refused(plans: Mapping[str, Any], members: Mapping[str, RunFolder]) -> list[Json]:
    """The refused arms of every system."""
    rows = {name: refused_arms(plan, read_json(members[name].manifest)) for name, plan in plans.items()}
    return [{**row, "name": _arm(name, row["name"], members)} for name, some in rows.items() for row in some]


def _plan(
    plans: Mapping[str, dict[str, Json]], members: Mapping[str, RunFolder], failed: Mapping[str, str]
) -> dict[str, Json]:
    """The first system's plan with everybody's arms; what differs between systems is said in its notes."""
    arms = [
        {**arm, "name": _arm(name, arm["name"], members), "system": name}
        for name, plan in plans.items()
        for arm in plan["arms"]
    ]
    first = next(iter(plans))
    notes = [
        f"system {name}: {plan['model']['name']} on {plan['server']['name']}, {plan['protocol']}; "
        + ("its arms keep their names" if name == first else f"its arms are called {name}/…")
        for name, plan in plans.items()
    ]
    notes += [f"system {name} did not run: {why}" for name, why in failed.items()]
    notes += _judged(members)
    notes += [note for plan in plans.values() for note in plan.get("notes") or ()]
    return {
        **plans[first],
        "n_jobs": sum(plan["n_jobs"] for plan in plans.values()),
        "config_digest": digest([plan["config_digest"] for plan in plans.values()]),
        "arms": arms,
        "refused_arms": _refused(plans, members),
        "systems": [
            {"name": name, "model": plan["model"]["name"], "server": plan["server"]["name"]}
            for name, plan in plans.items()
        ],
        "notes": list(dict.fromkeys(notes)),
    }
