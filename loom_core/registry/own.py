"""Registers what core itself brings beside its commands: the plain table of means."""

from __future__ import annotations

from collections.abc import Sequence

from loom_core.contract.hookspecs import hookimpl
from loom_core.contract.specs import RunReportSpec

PLAIN = "plain"
"""Core's own run report, taken where no other is installed."""


@hookimpl
def loom_run_reports() -> Sequence[RunReportSpec]:
    """The plain one."""
    return (
        RunReportSpec(
            name=PLAIN,
            version="1",
            summary="means and how many answers stand behind them, as plain text",
            factory="loom_core.run.reporting:PlainReport",
        ),
    )
