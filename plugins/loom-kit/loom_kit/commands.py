"""Registers the commands of loom-kit; each is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence

from loom_core.contract.hookspecs import hookimpl
from loom_core.contract.specs import CommandSpec


@hookimpl
def loom_commands() -> Sequence[CommandSpec]:
    """Two commands."""
    return (
        CommandSpec(
            name="new", summary="Write a minimal plugin distribution to start from.", factory="loom_kit.cli.new:new"
        ),
        CommandSpec(
            name="check",
            summary="Check an installed plugin, or methods against oracle results.",
            factory="loom_kit.cli.check:check",
        ),
    )
