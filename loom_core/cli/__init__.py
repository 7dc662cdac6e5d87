"""The command line: one file a command, imported when it is called, so that `loom --help` stays instant.

A `LoomError` ends in its message and its exit code, and so does a refusal of the operating system (a full disk, a
limit, a name too long); anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress

import click

from loom_core import __version__
from loom_core.cli import exits
from loom_core.cli.commands import own_commands
from loom_core.contract.errors import LoomError, PluginError, UsageError, nearest, refusal
from loom_core.contract.guard import guarded
from loom_core.registry.commands import Command, installed_commands

KNOWN = "loom.commands"
"""Where a command line keeps the commands that it found."""


class LazyGroup(click.Group):
    """Commands by name; a command's module is imported when the command is used."""

    def _installed(self, context: click.Context) -> dict[str, Command]:
        """What is installed, looked up once for a command line."""
        if KNOWN not in context.meta:
            say = lambda name, why: exits.say(f"loom: plugin {name} is broken: {why}", err=True)  # noqa: E731
            context.meta[KNOWN] = installed_commands(own_commands(), say)
        found: dict[str, Command] = context.meta[KNOWN]
        return found

    def list_commands(self, context: click.Context) -> list[str]:
        """Core's own commands in the order of a run, then those of plugins."""
        return [*self._installed(context)]  # `list` is here the module of that command, once it was imported

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command, imported now. Raises PluginError where a plugin's cannot be."""
        if name not in self._installed(context):
            return None
        found = self._installed(context)[name]
        with guarded(f"command {name} of {found.distribution}"):
            command = found.load()
        if not isinstance(command, click.Command):
            raise PluginError(f"{found.spec.factory} is not a click command", where=found.distribution)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The command list, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.spec.summary) for name, command in self._installed(context).items()])

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with; an unknown one names its near neighbours."""
        name = arguments[0]
        if not name.startswith("-") and name not in self._installed(context):
            raise UsageError(f"unknown command {name!r}", hint=nearest(name, self.list_commands(context)))
        return super().resolve_command(context, arguments)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="loom")
def cli() -> None:
    """Evaluate long-context language models: any benchmark, any server, any acceleration.

    \b
    loom run                                     the embedded model, no download
    loom run passkey --model PATH --accel snapkv:budget=1024 --lengths 4k,16k
    loom run runs/NAME                           continue a run
    """


def main() -> None:
    """The entry point `loom`."""
    exits.prepare()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(prog_name="loom", standalone_mode=False)
        exits.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except LoomError as error:
        sys.exit(_failed(error))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        exits.say("stopped", err=True)
        sys.exit(3)
    except OSError as error:
        sys.exit(_failed(refusal(error)))


def _interrupt(*_: object) -> None:
    """SIGTERM, what a scheduler or `kill` sends, ends a command as Ctrl-C does: in order, with what to do next."""
    raise KeyboardInterrupt


def _failed(error: LoomError) -> int:
    """Print what went wrong, without secrets; the exit code."""
    from loom_core.run.manifest import redact, secrets

    with suppress(OSError):
        exits.flush()
        exits.say(exits.paint("error: ", fg="red", bold=True), redact(str(error), secrets()), err=True)
    return error.exit_code
