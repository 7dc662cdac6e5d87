"""What decides the answers of a run beside its settings: behaviour versions, limits and options of what is installed.

A plan records them, and a run that continues holds them against what is installed now. Knows plans and selections;
asks no model and reads no sample.
"""

from __future__ import annotations

from loom_core.contract.keys import plain
from loom_core.contract.records import Plan
from loom_core.contract.types import Json
from loom_core.registry.plugins import Catalog
from loom_core.run.selection import Selection
from loom_core.run.settings_diff import differing, shown


def installed(selection: Selection) -> dict[str, Json]:
    """The components of a selection as they are installed now, by group and name."""
    spec = selection.server.spec
    return {
        "server": {spec.name: {"version": spec.version}},
        "task": {
            name: {
                "benchmark": {chosen.name: chosen.choice.found.spec.version},
                "version": task.version,
                "options": plain(chosen.choice.options),
                "generation": plain(task.generation),
                "truncation": plain(task.truncation),
                "chat": task.chat,
            }
            for chosen, task, name in selection.tasks()
        },
        "arm": {
            arm.name: {part.name: {"version": part.version, "options": plain(part.options)} for part in arm.parts}
            for arm in selection.arms
        },
    }


def planned(plan: Plan) -> dict[str, Json]:
    """The components that a plan was made with, in the shape of `installed`."""
    return {
        "server": {plan["server"]["name"]: {"version": plan["server"]["version"]}},
        "task": {
            task["name"]: {
                "benchmark": {task["benchmark"]: task["benchmark_version"]},
                "version": task["version"],
                "options": task["options"],
                "generation": task["generation"],
                "truncation": task["truncation"],
                "chat": task["chat"],
            }
            for task in plan["tasks"]
        },
        "arm": {
            arm["name"]: {
                part["name"]: {"version": part["version"], "options": part["options"]} for part in arm["parts"]
            }
            for arm in plan["arms"]
        },
    }


def changes(plan: Plan, selection: Selection) -> list[str]:
    """What of the installed components is not what the plan was made with, a line each; empty where all is the same."""
    lines: dict[str, None] = {}
    for knob in differing(planned(plan), installed(selection)):
        owner, _, what = knob.name.partition(".")
        if what.startswith("benchmark."):
            # One line for the benchmark, not one for each of its tasks.
            owner, what, group = what.removeprefix("benchmark."), "version", "benchmark"
        else:
            group = knob.group
        lines[f"{group} {owner}{', ' + what if what else ''}: {shown(knob.first)} → {shown(knob.second)}"] = None
    return list(lines)


def newer_scorers(plan: Plan, catalog: Catalog) -> list[str]:
    """Metrics and benchmarks whose installed version is not the one that made the recorded scores, a line each."""
    lines: dict[str, None] = {}
    for task in plan["tasks"]:
        for metric in task["metrics"]:
            name, version = metric["name"], metric["version"]
            if name in catalog.metrics and (now := catalog.metrics.get(name).spec.version) != version:
                lines[f"metric {name}: scored by version {version}, installed is {now}"] = None
        benchmark = task["benchmark"]
        version = task.get("scored_version", task["benchmark_version"])
        if benchmark in catalog.benchmarks and (now := catalog.benchmarks.get(benchmark).spec.version) != version:
            lines[f"benchmark {benchmark}: scored by version {version}, installed is {now}"] = None
    return list(lines)
