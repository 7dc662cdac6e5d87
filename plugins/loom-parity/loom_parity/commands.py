"""Registers the commands of loom-parity; each is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence

from loom_core.contract.hookspecs import hookimpl
from loom_core.contract.specs import CommandSpec


@hookimpl
def loom_commands() -> Sequence[CommandSpec]:
    """Two commands."""
    return (
        CommandSpec(
            name="parity",
            summary="Compare a benchmark with its authors' own program.",
            factory="loom_parity.cli:parity",
        ),
        CommandSpec(
            name="reproduced",
            summary="Recompute the tables that a benchmark's authors published.",
            factory="loom_parity.cli:reproduced",
        ),
    )
