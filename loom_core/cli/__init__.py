"""The command line: one file a command, imported when it is called, so that `loom --help` stays instant.

A `LoomError` ends in its message and its exit code, and so does a refusal of the operating system (a full disk, a
limit, a name too long); anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import signal
import sys
from contextlib import suppress

import click

from loom_core import __version__
from loom_core.cli import exits
from loom_core.errors import LoomError, UsageError, nearest, refusal
from loom_core.guard import described, guarded

COMMANDS = {
    "run": "Run benchmarks on a model, or continue a run.",
    "plan": "Show what would run, what is refused and why.",
    "prompts": "Print the exact prompts that a run would ask.",
    "score": "Score the recorded answers of a run again.",
    "report": "Write and show the report of a run.",
    "view": "Serve a run's report with every sample.",
    "compare": "Compare two runs question by question.",
    "diff": "Show which settings of two runs differ.",
    "reproduce": "Make a run again, and compare.",
    "leaderboard": "Rank runs; show published figures beside them.",
    "list": "List what is installed.",
    "info": "Describe one benchmark, server, augmentation, metric, model or suite.",
    "data": "Fetch, lock and verify pinned data files.",
    "doctor": "Say what is installed, and what is in the way.",
    "new": "Write a minimal plugin distribution to start from.",
    "check": "Check an installed plugin, or methods against oracle results.",
}


class LazyGroup(click.Group):
    """Commands by name; a command's module is imported when the command is used."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Built-in commands in the order of a run, then those of plugins."""
        return [*COMMANDS, *sorted(set(self.commands) - set(COMMANDS))]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command, imported now."""
        if name in COMMANDS:
            module = importlib.import_module(f"loom_core.cli.{name}")
            command: click.Command = getattr(module, name if name != "list" else "list_")
            return command
        self._load_plugins()
        return super().get_command(context, name)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The command list, without importing any command."""
        self._load_plugins()
        rows = [*COMMANDS.items()]  # `list` is a command's module here
        rows += [(name, command.get_short_help_str()) for name, command in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with; an unknown one names its near neighbours."""
        name = arguments[0]
        if not name.startswith("-") and self.get_command(context, name) is None:
            raise UsageError(f"unknown command {name!r}", hint=nearest(name, self.list_commands(context)))
        return super().resolve_command(context, arguments)

    def _load_plugins(self) -> None:
        """Let plugins of the group `loom.commands` add their commands; one that raises is named and passed over."""
        for point in importlib.metadata.entry_points(group="loom.commands"):
            try:
                with guarded(f"plugin {point.name}"):
                    point.load().loom_commands(self)
            except LoomError as error:  # one broken plugin must not take the command line away
                exits.say(f"loom: plugin {point.name} is broken: {described(error.__cause__ or error)}", err=True)


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
    from loom_core.manifest import redact, secrets

    with suppress(OSError):
        exits.flush()
        exits.say(exits.paint("error: ", fg="red", bold=True), redact(str(error), secrets()), err=True)
    return error.exit_code
