"""Registers the commands of loom-lab; each is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence

from loom_core.contract.hookspecs import hookimpl
from loom_core.contract.specs import CommandSpec


@hookimpl
def loom_commands() -> Sequence[CommandSpec]:
    """One command."""
    return (
        CommandSpec(
            name="reproduce", summary="Make a run again, and compare.", factory="loom_lab.cli.reproduce:reproduce"
        ),
    )
