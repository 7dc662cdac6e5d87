"""The report as `loom run` and `loom score` know it: written after every run, shown on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loom_core.run.store import RunFolder
from loom_report import files
from loom_report.records import Report
from loom_report.render.banners import empty_answers
from loom_report.render.terminal import Shown


class RunReport:
    """See `loom_core.run.reporting.RunReport`."""

    def write(self, folder: RunFolder) -> Any:
        """report.json, report.md and report.html."""
        return files.write(folder)

    def show(self, report: Report) -> Iterator[object]:
        """Banners and tables, as wide as the terminal."""
        yield Shown(report)

    def closing(self, folder: RunFolder, report: Report) -> Iterator[str]:
        """Where the page lies, and whether answers are empty."""
        yield f"report: {folder.report_html}"
        if told := empty_answers(report.get("state") or {}):
            yield told
