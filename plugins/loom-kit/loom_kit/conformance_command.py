"""What a plugin that adds commands must fulfil: a light import, names of its own, help that works.

Knows the entry-point group `loom.commands`; knows no command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import click
from click.testing import CliRunner

from loom_core.contract.specs import CommandSpec
from loom_core.registry.commands import Command
from loom_kit.rows import Row, attempt, reason


def check_commands(
    subject: str,
    commands: Callable[[], Sequence[Command]],
    taken: frozenset[str],
) -> Iterator[Row]:
    """One row a rule and command. commands: what the plugin registers. taken: names of loom's own commands."""
    try:
        given = list(commands())
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is its result
        yield Row(subject, "registers its commands", False, f"raised {reason(error)}")
        return
    wrong = [one.spec for one in given if not isinstance(one.spec, CommandSpec)]
    why = f"{wrong[0]!r} is not a CommandSpec" if wrong else "" if given else "no command was registered"
    yield Row(subject, "registers its commands", not why, why)
    for one in (one for one in given if isinstance(one.spec, CommandSpec)):
        spec = one.spec
        yield attempt(f"loom {spec.name}", "has a name of its own", partial(_own_name, spec.name, taken))
        yield attempt(f"loom {spec.name}", "has a summary", partial(_summary, spec))
        yield attempt(f"loom {spec.name}", "shows its help", partial(_helps, one))


def _summary(spec: CommandSpec) -> None:
    assert spec.summary.strip(), "summary is empty: it is the command's line in `loom --help`"


def _own_name(name: str, taken: frozenset[str]) -> None:
    assert name not in taken, f"loom has a command {name!r}, which would hide this one: choose another name"


def _helps(one: Command) -> None:
    spec, command = one.spec, one.load()
    assert isinstance(command, click.Command), f"{spec.factory} is not a click command"
    group = click.Group(commands={spec.name: command}, context_settings={"help_option_names": ["-h", "--help"]})
    done = CliRunner().invoke(group, [spec.name, "--help"], prog_name="loom")
    assert done.exit_code == 0, f"--help ends with code {done.exit_code}: {done.exception or done.output.strip()[:200]}"
    assert command.get_short_help_str(), "no help text: give the command a docstring"
