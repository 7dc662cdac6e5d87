"""The certificate that a benchmark equals its authors' program: what was compared, when, and whether it still holds.

`loom parity --write` stores it beside the benchmark's adapter; it holds numbers, names and digests, no text of others.
Knows files and specs; imports no adapter.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

from loom_core.contract.errors import PluginError
from loom_core.contract.keys import plain
from loom_core.contract.specs import BenchmarkSpec
from loom_core.contract.types import Json

FILE = "certificate.json"
SHORT = 7
"""Characters of a commit that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The cases of one kind and name. compared = equal + different (named) + unexplained; crashed: cases on which the
    authors' code raises or dies, which are not compared."""

    kind: str
    name: str
    compared: int = 0
    equal: int = 0
    different: int = 0
    unexplained: int = 0
    crashed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What `loom parity` found.

    version: the benchmark spec's, metrics: each metric's, of what was compared. upstream: `commit` (as found),
    `expected` (of the adapter) and `files`, path to sha256. options, tasks, seed, limit: what was asked. differences:
    {name, what, n}. crashes: {kind, name, raises, n, loom}, with loom's values of these cases by how often they come.
    unexplained: the first of them, {kind, name, id} with numbers or digests of both values. missing: what was not
    compared, and why. restarts: how often the authors' process died.
    """

    benchmark: str
    version: str
    distribution: str
    metrics: Mapping[str, str]
    loom: str
    upstream: Mapping[str, Json]
    options: Mapping[str, Json] = field(default_factory=dict)
    tasks: Sequence[str] = ()
    seed: int = 0
    limit: int | None = None
    counts: Sequence[Count] = ()
    differences: Sequence[Mapping[str, Json]] = ()
    crashes: Sequence[Mapping[str, Json]] = ()
    unexplained: Sequence[Mapping[str, Json]] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    restarts: int = 0

    def total(self, what: str) -> int:
        """The sum of one number over all counts."""
        return sum(getattr(count, what) for count in self.counts)

    def to_json(self) -> Json:
        """The certificate as it is written."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}

    @staticmethod
    def from_json(record: Mapping[str, Json]) -> Certificate:
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError for anything else."""
        return Certificate(**{**record, "counts": tuple(Count(**row) for row in record["counts"])})


def place(spec: BenchmarkSpec) -> Path:
    """Where a benchmark's certificate lies: beside the module of its adapter. Imports nothing."""
    package, *inner = spec.parity.partition(":")[0].split(".")
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise PluginError(
            f"the adapter of benchmark {spec.name} lies in no package",
            where=spec.parity,
            hint='parity="package.module:Class"',
        )
    return Path(next(iter(found.submodule_search_locations)), *inner[:-1], FILE)


def read(spec: BenchmarkSpec) -> Certificate | None:
    """A benchmark's certificate; None where it has no adapter or none was made. Raises PluginError for a broken one."""
    if not spec.parity:
        return None
    path = place(spec)
    if not path.is_file():
        return None
    try:
        return Certificate.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PluginError(
            f"the certificate of benchmark {spec.name} cannot be read",
            where=str(path),
            why=f"{type(error).__name__}: {error}",
            hint=f"make it again: loom parity {spec.name} --upstream FOLDER --write",
        ) from error


class Dated(Protocol):
    """A record of what was true of these versions."""

    @property
    def benchmark(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def metrics(self) -> Mapping[str, str]: ...


def stale(certificate: Dated, spec: BenchmarkSpec, metrics: Mapping[str, str]) -> str:
    """Why a record no longer speaks for what is installed; "" where it does. metrics: versions installed."""
    if certificate.benchmark != spec.name:
        return f"made for {certificate.benchmark}"
    if certificate.version != spec.version:
        return f"made for version {certificate.version}, this is {spec.version}"
    for name, version in certificate.metrics.items():
        if name not in metrics:
            return f"made with metric {name}, which is not installed"
        if metrics[name] != version:
            return f"made with metric {name} version {version}, this is {metrics[name]}"
    return ""


def in_words(spec: BenchmarkSpec, metrics: Mapping[str, str]) -> str:
    """A benchmark's parity in a few words: "4,120 of 4,120 equal at 2e00731", "stale: …", "none"."""
    try:
        certificate = read(spec)
    except PluginError as error:
        return f"unreadable: {error.why or error.what}"
    if certificate is None:
        return "none"
    if why := stale(certificate, spec, metrics):
        return f"stale: {why}"
    return summary(certificate)


def summary(certificate: Certificate) -> str:
    """What a certificate says in one line."""
    commit = str(certificate.upstream.get("commit") or "")[:SHORT] or "an unknown commit"
    text = f"{certificate.total('equal'):,} of {certificate.total('compared'):,} equal at {commit}"
    if different := certificate.total("different"):
        text += f", {different:,} differ as named"
    if unexplained := certificate.total("unexplained"):
        text += f", {unexplained:,} unexplained"
    return text
