"""`loom parity` from its arguments to a certificate: what is compared, with what, and what is told and written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loom_core import __version__
from loom_core.contract.errors import PluginError, UsageError, nearest
from loom_core.contract.keys import plain
from loom_core.contract.protocols import Data
from loom_core.contract.specs import BenchmarkSpec
from loom_core.data.access import DataDir
from loom_core.registry.plugins import Catalog, installed, resolve
from loom_core.run.config import RunConfig
from loom_core.run.selection import Chosen, described, opened
from loom_parity import certificate, checkout
from loom_parity.authors import Authors
from loom_parity.certificate import SHORT, Certificate
from loom_parity.comparing import Comparison, Disagreement, compare, described as differing, limited
from loom_parity.contract import Parity, ParityContext
from loom_parity.told import Teller


def run(
    benchmark: str,
    *,
    upstream: Path,
    commit: str | None,
    seed: int,
    limit: int | None,
    lengths: str | None,
    model: str | None,
    server: str | None,
    data_dir: str | None,
    python: str | None,
    timeout: float,
    out: Path | None,
    write: bool,
    form: str,
) -> int:
    """Compare, tell, write; the exit code: 1 where a difference is not explained, else 0."""
    catalog, root = installed(), upstream.resolve()
    given = {"benchmarks": [benchmark], "lengths": lengths, "model": model, "server": server, "data_dir": data_dir}
    config = RunConfig().merged({name: value for name, value in given.items() if value is not None}, "command line")
    (chosen,) = opened(config, catalog)
    spec = chosen.choice.found.spec
    adapter = load(spec, catalog)
    checkout.refuse(root, adapter.files, spec.name, adapter.commit)
    context = context_of(chosen, config, catalog, root=root, seed=seed, limit=limit)
    teller = Teller(form)
    with Authors(spec.parity, root, python=python or sys.executable, seconds=timeout) as authors, _full(out) as keep:

        def hear(found: Disagreement) -> None:
            keep(found)
            teller.hear(found)

        made = compare(adapter, limited(adapter, context, authors.functions), authors.ask, hear)
        files = {*adapter.files, *authors.files()}
    found_commit = checkout.commit_of(root) or (commit or "")
    record = _certificate(
        chosen,
        catalog,
        context,
        made,
        adapter,
        {"commit": found_commit, "expected": adapter.commit, "files": dict(checkout.digests(root, files))},
        warnings(root, files, found_commit, commit, adapter),
        authors.restarts,
    )
    teller.end(record)
    if write:
        teller.say(f"certificate written: {_written(record, spec)}")
    return 1 if made.n_unexplained else 0


def _written(record: Certificate, spec: BenchmarkSpec) -> Path:
    """Store the certificate beside the adapter; the file. Raises UsageError where nothing was compared."""
    if not record.total("compared"):
        raise UsageError(
            "no certificate is written",
            where=f"loom parity {spec.name} --write",
            why="no case was compared: " + ("; ".join(record.missing.values()) or "their code failed on each"),
            hint="name a folder with the data that is missing (--data-dir), or leave --write out",
        )
    path = certificate.place(spec)
    path.write_text(json.dumps(record.to_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


def context_of(
    chosen: Chosen, config: RunConfig, catalog: Catalog, *, root: Path, seed: int, limit: int | None
) -> ParityContext:
    """What the adapter makes its cases from; a tokenizer only where the command names a model."""
    names = dict.fromkeys(name for task in chosen.tasks for name in task.metrics)
    return ParityContext(
        benchmark=chosen.benchmark,
        tasks=chosen.tasks,
        data=DataDir.from_environment(config.data_dir, None).for_benchmark(chosen.name),
        root=root,
        tokenizer=described(config, catalog).tokenizer if config.model or config.server else None,
        lengths=config.lengths,
        metrics={name: catalog.load(catalog.metrics.get(name))() for name in names},
        seed=seed,
        limit=limit,
    )


def load(spec: BenchmarkSpec, catalog: Catalog) -> Parity:
    """A benchmark's adapter, built. Raises UsageError where it has none, PluginError where it cannot be used."""
    if not spec.parity:
        known = [found.spec.name for found in catalog.benchmarks if found.spec.parity]
        raise UsageError(
            f"benchmark {spec.name} has no adapter to its authors' program",
            hint="benchmarks with one: " + ", ".join(known) if known else nearest(spec.name, known),
        )
    try:
        adapter: Parity = resolve(spec.parity)()
        missing = [
            name
            for name in ("commit", "files", "differences", "authors", "cases", "explain")
            if not hasattr(adapter, name)
        ]
    except Exception as error:
        raise PluginError(
            f"the adapter of {spec.name} cannot be loaded", where=spec.parity, why=f"{type(error).__name__}: {error}"
        ) from error
    if missing:
        raise PluginError(f"the adapter of {spec.name} lacks {', '.join(missing)}", where=spec.parity)
    return adapter


def warnings(root: Path, files: set[str], found: str, given: str | None, adapter: Parity) -> list[str]:
    """What a reader must know of the checkout."""
    told = []
    if not found:
        told.append("the commit of the checkout is not known: give it with --commit")
    elif not (found.startswith(adapter.commit) or adapter.commit.startswith(found)):
        told.append(f"the checkout is at {found[:10]}, loom's rules were read from {adapter.commit[:10]}")
    if given and found and not found.startswith(given) and not given.startswith(found):
        told.append(f"--commit {given} is not what git says: {found[:10]}")
    if altered := checkout.changed(root, sorted(files)) if checkout.commit_of(root) else []:
        told.append("changed since that commit: " + ", ".join(altered[: checkout.SHOWN]))
    return told


def stand_ins(data: Data) -> list[str]:
    """The files read that a mirror says are not the authors' whole ones: cut, or made up in their shape."""
    return [
        f"not the whole file of its authors, as EXTRACT.toml says: {used.pin} (sha256 {used.sha256[:SHORT]})"
        for used in (data.used() if isinstance(data, DataDir) else ())
        if used.extract
    ]


def _certificate(
    chosen: Chosen,
    catalog: Catalog,
    context: ParityContext,
    made: Comparison,
    adapter: Parity,
    upstream: Mapping[str, Any],
    told: list[str],
    restarts: int,
) -> Certificate:
    found = chosen.choice.found
    return Certificate(
        benchmark=found.spec.name,
        version=found.spec.version,
        distribution=f"{found.distribution} {found.distribution_version}",
        metrics={name: catalog.metrics.get(name).spec.version for name in sorted(context.metrics)},
        loom=__version__,
        upstream=upstream,
        options=plain(chosen.choice.options),
        tasks=[task.name for task in chosen.tasks],
        seed=context.seed,
        limit=context.limit,
        counts=made.rows(),
        differences=differing(adapter.differences, made.differences),
        crashes=made.crash_rows(),
        unexplained=made.unexplained_rows(),
        missing=dict(sorted(context.missing.items())),
        warnings=told,
        restarts=restarts,
    )


@contextmanager
def _full(out: Path | None) -> Iterator[Callable[[Disagreement], None]]:
    """Writes each disagreement in full to `out`; does nothing without one."""
    if out is None:
        yield lambda found: None
        return
    try:
        stream = out.open("w", encoding="utf-8")
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError("this file cannot be written", where=f"--out {out}", why=why) from error
    with stream:

        def keep(found: Disagreement) -> None:
            case = found.case
            row = {
                "kind": case.kind,
                "name": case.name,
                "id": case.id,
                "difference": found.difference,
                "crash": found.crash,
                "payload": case.payload,
                "theirs": found.theirs,
                "ours": found.ours,
            }
            stream.write(json.dumps(row, ensure_ascii=True) + "\n")

        yield keep
