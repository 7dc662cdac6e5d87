"""Tables of figures that others published, as TOML beside this file. Reference rows: never measured here, never ranked.

Each file: `source`, `short` and tables with `number`, `title`, `note`, the `benchmarks` they are about, `columns` and
`rows` (a text stands where the source has one: a name, a time h:mm:ss, "-").
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Published:
    """One published table. rows: texts and numbers, in the source's scale."""

    source: str
    short: str
    number: int
    title: str
    note: str
    benchmarks: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]


def tables(benchmarks: Iterable[str] | None = None) -> list[Published]:
    """The published tables; those about one of `benchmarks` alone, where they are given."""
    wanted = None if benchmarks is None else set(benchmarks)
    found = []
    for path in sorted(resources.files("loom_report.published").iterdir(), key=lambda path: path.name, reverse=True):
        if not path.name.endswith(".toml"):
            continue
        record = tomllib.loads(path.read_text("utf-8"))
        for table in record["table"]:
            if wanted is None or wanted & set(table["benchmarks"]):
                found.append(
                    Published(
                        source=record["source"],
                        short=record["short"],
                        number=table["number"],
                        title=table["title"],
                        note=table.get("note", ""),
                        benchmarks=tuple(table["benchmarks"]),
                        columns=tuple(table["columns"]),
                        rows=tuple(map(tuple, table["rows"])),
                    )
                )
    return found
