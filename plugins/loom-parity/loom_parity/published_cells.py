"""Cells of published tables beside what loom makes of the raw outputs that are public.

`loom reproduced --write` stores them beside the benchmark's adapter; docs/reproduced.md is made from these files. They
hold figures and names, no text of others. Knows files and specs; imports no adapter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from loom_core.contract.errors import PluginError
from loom_core.contract.keys import plain
from loom_core.contract.specs import BenchmarkSpec
from loom_core.contract.types import Json
from loom_parity import certificate

FILE = "reproduced.json"
TINY = 1e-9
Outcome: TypeAlias = Literal["equal", "cut", "other", "no outputs"]
MEANING: Mapping[Outcome, str] = {
    "equal": "comes out, rounded to the digits printed",
    "cut": "comes out, if the digits beyond those printed were cut off and not rounded",
    "other": "does not come out",
    "no outputs": "not recomputed: its raw outputs are not in the repository",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One figure of a published table.

    printed: as it is there, with its digits. source: where it is printed ("github:owner/repo@commit:path", or a
    paper's table). outputs: the raw outputs, by path in the checkout; "" where there are none. value: loom's, in the
    scale of the table; None without outputs. n: answers scored. why: the explanation where it does not come out.
    """

    table: str
    row: str
    column: str
    printed: str
    source: str
    outputs: str = ""
    value: float | None = None
    n: int = 0
    why: str = ""

    @property
    def outcome(self) -> Outcome:
        """What became of the cell; see `MEANING`."""
        if self.value is None:
            return "no outputs"
        unit = 10.0 ** -len(self.printed.partition(".")[2])
        over = self.value - float(self.printed)
        if abs(over) <= unit / 2 + TINY:
            return "equal"
        return "cut" if -TINY <= over < unit else "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduced:
    """What `loom reproduced` found. version: the benchmark spec's, metrics: each metric's. command: what gives it."""

    benchmark: str
    version: str
    metrics: Mapping[str, str]
    commit: str
    command: str
    cells: Sequence[Cell]

    def to_json(self) -> Json:
        """The record as it is written."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}

    @staticmethod
    def from_json(record: Mapping[str, Json]) -> Reproduced:
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError for anything else."""
        return Reproduced(**{**record, "cells": tuple(Cell(**row) for row in record["cells"])})

    def count(self, outcome: Outcome) -> int:
        """How many cells came to this."""
        return sum(cell.outcome == outcome for cell in self.cells)

    @property
    def unexplained(self) -> list[Cell]:
        """Cells that do not come out, without a word why."""
        return [cell for cell in self.cells if cell.outcome == "other" and not cell.why]


def read(spec: BenchmarkSpec) -> Reproduced | None:
    """A benchmark's record; None where it recomputes nothing or none was made. Raises PluginError for a broken one."""
    if not spec.published or not spec.parity:
        return None
    path = certificate.place(spec).with_name(FILE)
    if not path.is_file():
        return None
    try:
        return Reproduced.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PluginError(
            f"the recomputed tables of benchmark {spec.name} cannot be read",
            where=str(path),
            why=f"{type(error).__name__}: {error}",
            hint=f"make them again: loom reproduced {spec.name} --upstream FOLDER --write",
        ) from error


def page(head: str, found: Sequence[tuple[BenchmarkSpec, Reproduced]]) -> str:
    """The page docs/reproduced.md: a section for each benchmark, a table for each published one."""
    parts = [head.strip()]
    for spec, record in found:
        counts = ((record.count(outcome), outcome) for outcome in MEANING)
        told = ", ".join(f"{n} {outcome}" for n, outcome in counts if n)
        parts.append(
            f"## {spec.name}\n\n`{record.command}` at commit `{record.commit[:7]}`, version {record.version}: {told}."
        )
        for name in dict.fromkeys(cell.table for cell in record.cells):
            cells = [cell for cell in record.cells if cell.table == name]
            parts += [f"### {name}", *_sources(cells), "\n".join(_rows(cells)), *_reasons(cells)]
    return "\n\n".join(parts) + "\n"


def _sources(cells: Sequence[Cell]) -> Iterator[str]:
    yield "Printed in: " + "; ".join(dict.fromkeys(cell.source for cell in cells)) + "."


def _rows(cells: Sequence[Cell]) -> Iterator[str]:
    yield "| row | column | printed | loom | answers | |"
    yield "| --- | --- | ---: | ---: | ---: | --- |"
    for cell in cells:
        digits = len(cell.printed.partition(".")[2])
        value = "" if cell.value is None else f"{cell.value:.{digits + 2}f}"
        n = f"{cell.n:,}" if cell.value is not None else ""
        yield f"| {cell.row} | {cell.column} | {cell.printed} | {value} | {n} | {cell.outcome} |"


def _reasons(cells: Sequence[Cell]) -> Iterator[str]:
    """Each explanation once, with its cells."""
    named: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        if cell.why:
            named.setdefault(cell.why, {}).setdefault(cell.row, []).append(cell.column)
    if named:
        yield "\n".join(
            "- " + "; ".join(f"{row} ({', '.join(columns)})" for row, columns in places.items()) + f": {why}"
            for why, places in named.items()
        )
