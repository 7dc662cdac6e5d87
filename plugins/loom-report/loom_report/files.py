"""A run folder as report.json, report.md and report.html. `write` makes them; `terminal.show` prints the same report.

Other formats are functions from report.json's dict to text: see `tables.to_csv`, `tables.to_latex`, and the hook
`loom_reports` for those of plugins.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from loom_core.run.store import RunFolder
from loom_core.run.writing import whole_file, write_json
from loom_report.build import build
from loom_report.records import Report
from loom_report.render import html, markdown, samples


def write(folder: RunFolder) -> Report:
    """Write report.json, report.md and report.html, each whole or not at all; returns what report.json holds.

    Works on any state of a run once its plan stands, and says what is missing. Raises RunError without a plan.
    """
    report, ledger = build(folder)
    write_json(folder.report_json, report)
    _write(folder.report_md, [markdown.render(report)])
    _write(folder.report_html, html.page(report, samples.chunks(folder, ledger)))
    return report


def _write(path: Path, pieces: Iterable[str]) -> None:
    with whole_file(path) as file:
        file.writelines(pieces)
