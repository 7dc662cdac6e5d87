"""`loom reproduced` from its arguments to a record: published figures beside loom's from the same raw outputs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from loom_core.contract.errors import UsageError
from loom_core.contract.specs import BenchmarkSpec
from loom_core.registry.plugins import Catalog, installed, resolve
from loom_core.run.config import RunConfig
from loom_core.run.selection import opened
from loom_parity import certificate, checkout, published_cells as reproduced
from loom_parity.command import context_of, load
from loom_parity.published_cells import Cell, Reproduced


def run(benchmark: str, *, upstream: Path, commit: str | None, data_dir: str | None, write: bool, form: str) -> int:
    """Recompute, tell, write; the exit code: 1 where a cell does not come out and has no explanation, else 0."""
    catalog, root = installed(), upstream.resolve()
    given = {"benchmarks": [benchmark], **({"data_dir": data_dir} if data_dir else {})}
    config = RunConfig().merged(given, "command line")
    (chosen,) = opened(config, catalog)
    spec = chosen.choice.found.spec
    _refuse(spec, catalog)
    adapter = load(spec, catalog)
    checkout.refuse(root, (), spec.name, adapter.commit)
    context = context_of(chosen, config, catalog, root=root, seed=0, limit=None)
    cells: list[Cell] = list(resolve(spec.published)(context))
    record = Reproduced(
        benchmark=spec.name,
        version=spec.version,
        metrics={name: catalog.metrics.get(name).spec.version for name in sorted(context.metrics)},
        commit=checkout.commit_of(root) or commit or "",
        command=f"loom reproduced {benchmark} --upstream FOLDER",
        cells=cells,
    )
    _tell(record, form)
    if write:
        path = certificate.place(spec).with_name(reproduced.FILE)
        path.write_text(json.dumps(record.to_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")
        click.echo(f"written: {path}", err=form == "json")
    return 1 if record.unexplained else 0


def _refuse(spec: BenchmarkSpec, catalog: Catalog) -> None:
    """Raise UsageError where the benchmark recomputes nothing."""
    if not spec.published:
        known = [found.spec.name for found in catalog.benchmarks if found.spec.published]
        hint = "benchmarks with some: " + ", ".join(known) if known else ""
        raise UsageError(f"benchmark {spec.name} recomputes no published table", hint=hint)


def _tell(record: Reproduced, form: str) -> None:
    if form == "json":
        click.echo(json.dumps(record.to_json(), indent=1, ensure_ascii=False))
        return
    for cell in record.cells:
        value = "-" if cell.value is None else f"{cell.value:.4f}"
        why = f": {cell.why}" if cell.why else ""
        click.echo(
            f"{cell.table}, {cell.row}, {cell.column}: printed {cell.printed}, loom {value} ({cell.outcome}){why}"
        )
    counts = {key: record.count(key) for key in reproduced.MEANING}
    click.echo(f"{record.benchmark} {record.version}: " + ", ".join(f"{n} {key}" for key, n in counts.items() if n))
