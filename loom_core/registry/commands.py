"""The commands of `loom` that are installed, by name. Loads only modules of the entry-point group `loom.commands`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from loom_core.contract.errors import LoomError, PluginError
from loom_core.contract.guard import described, guarded
from loom_core.contract.specs import CommandSpec
from loom_core.registry.plugins import COMMANDS_GROUP, new_manager, resolve

OWN = "loom-core"


class Command(NamedTuple):
    """A command and the distribution that brings it."""

    spec: CommandSpec
    distribution: str
    made: Any = None
    """The click command itself, where a plugin of before added one to the group (`loom_commands(cli)`)."""

    def load(self) -> Any:
        """The click command, imported now."""
        return self.made if self.made is not None else resolve(self.spec.factory)


def installed_commands(own: Iterable[CommandSpec], broken: Callable[[str, str], None]) -> dict[str, Command]:
    """Core's own, then those of other distributions by name. broken: told the name of a plugin that cannot be used, and
    why; it takes no other command away.
    """
    found = {spec.name: Command(spec, OWN) for spec in own}
    n_own = len(found)
    for point in sorted(importlib.metadata.entry_points(group=COMMANDS_GROUP), key=lambda p: (p.name, p.value)):
        try:
            with guarded(f"plugin {point.name}"):
                _add(found, point)
        except LoomError as error:
            broken(point.name, described(error.__cause__) if error.__cause__ is not None else error.what)
    return dict([*[*found.items()][:n_own], *sorted([*found.items()][n_own:])])


def _add(found: dict[str, Command], point: importlib.metadata.EntryPoint) -> None:
    """Add the commands of one entry point. Raises PluginError where one is not a spec or its name is taken."""
    distribution = point.dist.name if point.dist else "?"
    for command in registered(point.load(), distribution):
        if not isinstance(command.spec, CommandSpec):
            raise PluginError(f"loom_commands returned {command.spec!r}, not a CommandSpec")
        if other := found.get(command.spec.name):
            raise PluginError(f"the command {command.spec.name!r} is already registered by {other.distribution}")
        found[command.spec.name] = command


def registered(plugin: Any, distribution: str) -> list[Command]:
    """What a plugin's `loom_commands` registers, unchecked: specs, and commands that it adds to the group."""
    import click

    group, manager = click.Group(), new_manager()
    manager.register(plugin, name=distribution)
    manager.check_pending()
    given = [Command(spec, distribution) for specs in manager.hook.loom_commands(cli=group) or () for spec in specs]
    for name, command in group.commands.items():
        spec = CommandSpec(name=name, summary=command.get_short_help_str(), factory="")
        given.append(Command(spec, distribution, command))
    return given
