"""`loom doctor`: what is installed and whether it can work: versions, plugins, devices, data, settings in the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from loom_core.cli.exits import paint, say, say_json

MARKS = {"ok": "green", "note": "cyan", "warning": "yellow", "broken": "red"}
LEAST_FREE_BYTES = 5 << 30
DEVICES = """
import json, torch
rows = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps([f"{row.name}, {row.total_memory / 2**30:.0f} GiB" for row in rows]))
"""
"""Asked in a process of its own: the core imports no torch."""


class Finding(NamedTuple):
    """One line: its mark, what it is about, and what was found."""

    mark: str
    subject: str
    text: str


@click.command(short_help="Show what is installed, and what is in the way.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def doctor(form: str) -> int:
    """Look at this installation: versions, broken plugins, missing dependencies, devices, data folders, disk, settings.

    Changes nothing and asks no network. Exit code 1 where something is broken.
    """
    found = [*_versions(), *_plugins(), *_devices(), *_data(), *_settings()]
    if form == "json":
        say_json([row._asdict() for row in found])
    else:
        for row in found:
            say(paint(f"{row.mark:<8}", fg=MARKS[row.mark]), f" {row.subject}: {row.text}")
    return int(any(row.mark == "broken" for row in found))


def _versions() -> Iterator[Finding]:
    import importlib.metadata

    from loom_core import __version__
    from loom_core.run.manifest import LIBRARIES, git_state

    checkout = git_state(Path(__file__).parent)
    origin = "installed"
    if checkout:
        origin = f"checkout {checkout['commit'][:10]}" + (", altered" if checkout["dirty"] else "")
    yield Finding("ok", "loom", f"{__version__} ({origin}), Python {sys.version.split()[0]}")
    known = []
    for name in LIBRARIES:
        try:
            known.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    yield Finding("ok" if known else "note", "libraries", ", ".join(known) or "none: no local models")


def _plugins() -> Iterator[Finding]:
    from loom_core.registry.plugins import installed

    catalog = installed()
    names = {found.distribution for kind in catalog.kinds for found in kind}
    counts = [f"{n} {kind.noun}{'s' * (n > 1)}" for kind in catalog.kinds if (n := len(list(kind)))]
    yield Finding("ok" if names else "warning", "plugins", f"{len(names)} distributions: " + ", ".join(counts))
    for broken in catalog.broken:
        yield Finding("broken", f"plugin {broken.name} of {broken.distribution}", broken.why)
    for name in sorted(names):
        for missing in _missing(name):
            yield Finding("broken", name, f"needs {missing}, which is not installed")
    for kind in catalog.kinds:
        told: dict[str, list[str]] = {}
        for found in kind:
            if found.spec.status != "ok":
                told.setdefault(found.spec.status, []).append(found.spec.name)
        for status, those in told.items():
            yield Finding("note", kind.noun + "s" * (len(those) > 1) + " " + ", ".join(those), status)


def _missing(distribution: str) -> Iterator[str]:
    """The distributions that one requires (extras and other systems' left aside) and that are absent."""
    import importlib.metadata
    import re

    try:
        required = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for line in required:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        if name is None or ";" in line:
            continue
        try:
            importlib.metadata.version(name[0])
        except importlib.metadata.PackageNotFoundError:
            yield line


def _devices() -> Iterator[Finding]:
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        yield Finding("note", "devices", "not asked: torch is not installed")
        return
    try:
        done = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True, timeout=120, check=True)
        rows = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield Finding("broken", "torch", f"cannot be imported: {last}")
        return
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        yield Finding("warning", "torch", f"did not report its devices: {error}")
        return
    text = "; ".join(rows) if rows else f"no GPU that torch can use; {os.cpu_count()} CPU cores"
    yield Finding("ok" if rows else "note", "devices", text)
    if not rows and shutil.which("nvidia-smi"):
        yield Finding("warning", "devices", "the driver is here, but this torch sees no GPU: is it a CPU build?")


def _data() -> Iterator[Finding]:
    from loom_core.contract.errors import LoomError
    from loom_core.data.access import DataDir

    try:
        data = DataDir.from_environment()
    except LoomError as error:
        yield Finding("broken", "data", str(error).replace("\n", " "))
        return
    mirror = f"mirror {data.mirror}" if data.mirror else "no mirror folder (LOOM_DATA)"
    yield Finding("ok", "data", f"{mirror}; cache {data.cache}; {'offline' if data.offline else 'downloads allowed'}")
    for subject, path in (("cache", data.cache), ("runs", Path("runs"))):
        place = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        free = shutil.disk_usage(place).free
        if not os.access(place, os.W_OK):
            yield Finding("warning", subject, f"{place} cannot be written")
        elif free < LEAST_FREE_BYTES:
            yield Finding("warning", subject, f"only {free / 2**30:.1f} GiB are free at {place}")


def _settings() -> Iterator[Finding]:
    """Settings of the environment that change what is measured, or that people forget."""
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads:
        yield Finding("note", "OMP_NUM_THREADS", f"{threads}: every worker uses so many threads")
    visible: Any = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        yield Finding("note", "CUDA_VISIBLE_DEVICES", f"{visible or '(empty)'}: other devices are not seen")
    for name in ("PYTHONPATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name):
            yield Finding("note", name, "is set; it decides what is found")
    if sys.platform == "win32":
        yield Finding("warning", "system", "run folders are locked with fcntl: use Linux, macOS or WSL")
