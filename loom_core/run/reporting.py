"""What is written after every run and shown for it: the contract, core's own plain table of means, and who is asked.

Knows the run folder; knows no statistics. Intervals, tests and pages come with the distribution loom-report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from loom_core.contract.errors import UsageError
from loom_core.contract.types import Json
from loom_core.registry.own import PLAIN
from loom_core.registry.plugins import Catalog
from loom_core.run.absent import refused_arms
from loom_core.run.opened import Run
from loom_core.run.store import RunFolder, read_json
from loom_core.run.writing import whole_file


class RunReport(Protocol):
    """Writes what a run came to into its folder, and shows it. Works on any state of a run that has a plan."""

    def write(self, folder: RunFolder) -> dict[str, Json]:
        """Write it, whole or not at all; returns the record that `show` and `closing` take. It has the plan's `tasks`.

        Raises RunError where the folder holds no plan.
        """

    def show(self, report: Mapping[str, Json]) -> Iterable[object]:
        """What a command prints for it: lines of text, or renderables of rich."""

    def closing(self, folder: RunFolder, report: Mapping[str, Json]) -> Iterable[str]:
        """Lines that end a command: where the report lies, and what its reader must not miss."""


def reporter(catalog: Catalog) -> RunReport:
    """The run report of this environment. Raises UsageError where two are installed."""
    others = [found for found in catalog.run_reports if found.spec.name != PLAIN]
    if len(others) > 1:
        raise UsageError(
            "two run reports are installed",
            why=" and ".join(f"{found.spec.name} ({found.distribution})" for found in others),
            hint="uninstall one of them",
        )
    made: RunReport = catalog.make(others[0] if others else catalog.run_reports.get(PLAIN))
    return made


class PlainReport:
    """Means by task and arm as text, with how many answers stand behind each."""

    def write(self, folder: RunFolder) -> dict[str, Json]:
        """See `RunReport`; the table is written as report.txt."""
        plan = read_json(folder.plan)
        manifest: Any = read_json(folder.manifest) if folder.manifest.exists() else {}
        report = {
            "name": folder.path.resolve().name,
            "server": plan["server"],
            "tasks": plan["tasks"],
            "refused_arms": refused_arms(plan, manifest),
            "rows": [list(mean) for mean in Run(folder).means()],
        }
        with whole_file(folder.path / "report.txt") as file:
            file.writelines(f"{line}\n" for line in self.show(report))
        return report

    def show(self, report: Mapping[str, Json]) -> Iterator[str]:
        """See `RunReport`."""
        heads = ("task", "arm", "metric", "mean", "n", "planned")
        rows = [
            (*row[:3], "" if row[3] is None else f"{row[3]:.3f}", str(row[4]), str(row[5])) for row in report["rows"]
        ]
        yield report["name"]
        if report["server"].get("sees_references"):
            server = report["server"]["name"]
            yield f"warning: server {server} is shown the reference answers: its scores are of no model"
        for row in report["refused_arms"]:
            yield f"arm {row['name']} is refused and did not run: {row['why']}"
        yield from aligned([heads, *rows], right=3)
        yield "means of the answers that have a score; loom-report adds intervals, paired tests and cost"

    def closing(self, folder: RunFolder, report: Mapping[str, Json]) -> Iterator[str]:
        """See `RunReport`."""
        yield f"report: {folder.path / 'report.txt'}"


def aligned(rows: Sequence[Sequence[str]], *, right: int) -> Iterator[str]:
    """Rows as columns two blanks apart; those from number `right` on are set to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (
            f"{text:>{size}}" if i >= right else f"{text:<{size}}"
            for i, (text, size) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
