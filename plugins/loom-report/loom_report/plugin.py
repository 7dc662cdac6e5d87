"""Registers the report that is written after every run, and makes the authors' own tables of what was scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from loom_core.contract.hookspecs import hookimpl
from loom_core.contract.specs import RunReportSpec

if TYPE_CHECKING:
    from loom_core.contract.protocols import Graded
    from loom_core.run.selection import Selection
    from loom_core.run.store import RunFolder


@hookimpl
def loom_run_reports() -> Sequence[RunReportSpec]:
    """One report."""
    return (
        RunReportSpec(
            name="report",
            version="1",
            summary="scores with intervals, paired differences, the authors' tables and cost; JSON, Markdown and HTML",
            factory="loom_report.run_report:RunReport",
        ),
    )


@hookimpl
def loom_graded(folder: RunFolder, selection: Selection, graded: Mapping[tuple[str, str], Sequence[Graded]]) -> None:
    """Write the authors' own tables beside the scores (official.json: by benchmark and arm)."""
    from loom_core.run.writing import write_json
    from loom_report import official

    write_json(folder.official, official.tables(selection, graded))
