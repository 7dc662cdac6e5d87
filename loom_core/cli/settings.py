"""The settings that `run` and `plan` share: flags, study file or run folder into one config that remembers origins."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from loom_core.pipeline import RunFile

F = TypeVar("F", bound=Callable[..., Any])

FLAGS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--suite",), {"help": "A named selection of benchmarks (loom list suites)."}),
    (("--model", "-m"), {"help": "An installed model's name, a model folder, or a hub id.  [default: loom-tiny]"}),
    (("--model-option", "model_options"), {"multiple": True, "metavar": "NAME=VALUE", "help": "Repeatable."}),
    (("--server", "-s"), {"help": "The server that runs the model.  [default: hf]"}),
    (("--server-option", "server_options"), {"multiple": True, "metavar": "NAME=VALUE", "help": "Repeatable."}),
    (
        ("--accel", "-a"),
        {"multiple": True, "metavar": "ARM", "help": "method[:option=value,…], stacked with +; {a,b} makes a grid."},
    ),
    (("--lengths", "-l"), {"metavar": "4k,32k", "help": "Prompt lengths in tokens of the model."}),
    (("--subset",), {"help": "This many samples of each task, drawn fairly over its levels."}),
    (("--subset-seed",), {"help": "Seed of that draw.  [default: 0]"}),
    (
        ("--template", "templates"),
        {"multiple": True, "metavar": "BENCH:TASK=FILE", "help": "Your own prompt for a task. Repeatable."},
    ),
    (("--limit", "-n"), {"help": "At most this many samples of each task, a fair subset."}),
    (
        ("--budget",),
        {
            "metavar": "30m",
            "help": "Ask in batches, where intervals are widest, until the time is spent (none: no limit).",
        },
    ),
    (
        ("--until",),
        {"metavar": "ci=2", "help": "Ask in batches until every interval is within ±2 points of 100 (none: all)."},
    ),
    (("--seed",), {"help": "Seed of generated samples.  [default: 0]"}),
    (("--repeats",), {"help": "Ask each question this many times.  [default: 1]"}),
    (
        ("--overlength",),
        {"metavar": "error|skip|truncate", "help": "Prompts longer than the window.  [default: error]"},
    ),
    (
        ("--protocol",),
        {
            "metavar": "query-aware|context-only",
            "help": "context-only: methods compress the context before the question.  [default: query-aware]",
        },
    ),
    (
        ("--thinking",),
        {"metavar": "BEGIN,END", "help": "Marks of a model's thinking, split off before scoring: <think>,</think>"},
    ),
    (("--thinking-budget",), {"help": "Tokens for thinking, added to each answer's limit.  [default: 0]"}),
    (
        ("--judge",),
        {"metavar": "SERVER:MODEL", "help": "The model that metrics ask for a judgement; any server can run it."},
    ),
    (("--judge-option", "judge_options"), {"multiple": True, "metavar": "NAME=VALUE", "help": "Repeatable."}),
    (
        ("--metric-option", "metric_options"),
        {"multiple": True, "metavar": "METRIC.NAME=VALUE", "help": "An option of a metric or its package. Repeatable."},
    ),
    (("--data-dir",), {"help": "Mirror folder of data files (or LOOM_DATA)."}),
    (("--offline",), {"is_flag": True, "default": None, "help": "Download nothing."}),
    (
        ("--trust-settings",),
        {
            "is_flag": True,
            "help": "Continue a run folder of somebody else with the endpoints, files and code it names.",
        },
    ),
)


def settings(function: F) -> F:
    """Add the shared flags to a command."""
    for names, arguments in reversed(FLAGS):
        function = click.option(*names, **arguments)(function)
    return click.argument("what", nargs=-1, metavar="[BENCHMARK… | STUDY.toml | RUN]")(function)


def config_from(what: tuple[str, ...], flags: dict[str, Any]) -> Any:
    """The `RunConfig` of a command line. `what`: benchmarks, one study file, or one run folder to continue."""
    from loom_core.contract.errors import UsageError
    from loom_core.pipeline import continued_config
    from loom_core.registry.names import is_description
    from loom_core.registry.plugins import installed
    from loom_core.run.config import HOW, RunConfig, from_toml
    from loom_core.run.store import RunFolder

    trusted = flags.pop("trust_settings", False)
    given = {name: _value(name, value) for name, value in flags.items() if value not in (None, ())}
    origin = "command line"
    for item in what if len(what) > 1 else ():
        if not is_description(item) and (item.endswith(".toml") or _is_folder(item)):
            raise UsageError(
                "a study file or a run folder must be given alone",
                where=item,
                hint="run it apart from " + " ".join(what[:2]),
            )
    if len(what) == 1 and what[0].endswith(".toml") and not is_description(what[0]):
        return from_toml(Path(what[0])).merged(given, origin)
    if len(what) == 1 and _is_folder(what[0]) and not is_description(what[0]):
        changed = sorted(set(given) - HOW)
        if changed:
            raise UsageError(
                f"{_flag(changed[0])} cannot be changed in an existing run",
                where=what[0],
                hint="continue it without the option, or start another run",
            )
        return continued_config(RunFolder(Path(what[0])), {**given, "out": what[0]}, installed(), trusted=trusted)
    return RunConfig().merged({**({"benchmarks": list(what)} if what else {}), **given}, origin)


def run_file(what: tuple[str, ...], flags: dict[str, Any]) -> RunFile | None:
    """What a command line names that is one TOML file which asks for more than one run; None for any other."""
    from loom_core.registry.plugins import installed

    if len(what) != 1 or not what[0].endswith(".toml"):
        return None
    given = {
        name: _value(name, value)
        for name, value in flags.items()
        if value not in (None, ()) and name != "trust_settings"
    }
    found: RunFile | None = installed().first("loom_run_file", path=Path(what[0]), settings=given)
    return found


def _is_folder(text: str) -> bool:
    """True for a run folder, and for whatever else can only be meant as a path."""
    if any(os.path.exists(Path(text) / name) for name in ("manifest.json", "plan.json")) or text in (".", ".."):
        return True
    return "/" in text and "@" not in text and ":" not in text


def _flag(name: str) -> str:
    return "--" + (name[:-1] if name.endswith("_options") else name).replace("_", "-")


def _value(name: str, value: Any) -> Any:
    from loom_core.contract.options import assignments

    if name.endswith("_options"):
        return assignments(",".join(value), where=_flag(name))
    if name == "templates":
        from loom_core.prompting.ownprompt import read_templates

        return read_templates(value, Path(), where="--template")
    return list(value) if isinstance(value, tuple) else value
