"""What a plugin that adds commands must fulfil: a light import, names of its own, help that works.

Knows the entry-point group `loom.commands`; knows no command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
from click.testing import CliRunner

from loom_kit.rows import Row, attempt, reason


def check_commands(subject: str, add: Callable[[click.Group], Any], taken: frozenset[str]) -> Iterator[Row]:
    """One row a rule and command. add: the plugin's `loom_commands`. taken: names of loom's own commands."""
    group = click.Group()
    try:
        add(group)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is its result
        yield Row(subject, "adds its commands", False, f"raised {reason(error)}")
        return
    yield Row(subject, "adds its commands", bool(group.commands), "" if group.commands else "no command was added")
    for name, command in group.commands.items():
        yield attempt(f"loom {name}", "has a name of its own", partial(_own_name, name, taken))
        yield attempt(f"loom {name}", "shows its help", partial(_helps, command))


def _own_name(name: str, taken: frozenset[str]) -> None:
    assert name not in taken, f"loom has a command {name!r}, which would hide this one: choose another name"


def _helps(command: click.Command) -> None:
    done = CliRunner().invoke(command, ["--help"], prog_name="loom")
    assert done.exit_code == 0, f"--help ends with code {done.exit_code}: {done.exception or done.output.strip()[:200]}"
    assert command.get_short_help_str(), "no help text: give the command a docstring"
