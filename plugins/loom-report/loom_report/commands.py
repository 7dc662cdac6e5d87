"""Registers the commands of loom-report; each is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence

from loom_core.contract.hookspecs import hookimpl
from loom_core.contract.specs import CommandSpec


@hookimpl
def loom_commands() -> Sequence[CommandSpec]:
    """Five commands."""
    return (
        CommandSpec(
            name="report", summary="Write and show the report of a run.", factory="loom_report.cli.report:report"
        ),
        CommandSpec(
            name="view", summary="Serve a run's report with every sample.", factory="loom_report.cli.view:view"
        ),
        CommandSpec(
            name="compare", summary="Compare two runs question by question.", factory="loom_report.cli.compare:compare"
        ),
        CommandSpec(
            name="diff", summary="Show which settings of two runs differ.", factory="loom_report.cli.diff:diff"
        ),
        CommandSpec(
            name="leaderboard",
            summary="Rank runs; show published figures beside them.",
            factory="loom_report.cli.leaderboard:leaderboard",
        ),
    )
