"""Registers what core itself brings beside its commands: the plain table of means, and two executors."""

from __future__ import annotations

from collections.abc import Sequence

from loom_core.contract.hookspecs import hookimpl
from loom_core.contract.specs import ExecutorSpec, RunReportSpec

PLAIN = "plain"
"""Core's own run report, taken where no other is installed."""


@hookimpl
def loom_run_reports() -> Sequence[RunReportSpec]:
    """The plain one."""
    return (
        RunReportSpec(
            name=PLAIN,
            version="1",
            summary="means and the number of answers behind them, as plain text",
            factory="loom_core.run.reporting:PlainReport",
        ),
    )


@hookimpl
def loom_executors() -> Sequence[ExecutorSpec]:
    """Worker processes, and none."""
    return (
        ExecutorSpec(
            name="local",
            version="1",
            summary="worker processes on this machine: a crash costs one worker, and a killed run continues",
            factory="loom_core.run.executors:Local",
        ),
        ExecutorSpec(
            name="inline",
            version="1",
            summary="loom's own process: breakpoints stop, exceptions of plugins come with their traceback",
            factory="loom_core.run.executors:Inline",
        ),
    )
