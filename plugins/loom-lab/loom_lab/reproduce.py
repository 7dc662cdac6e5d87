"""A run's bundle, and a run made again from a folder or a bundle: the same questions of the same model, or a refusal.

A bundle is a .tar.gz of what a run folder says of itself, its answers and its scores, without the contexts: those
belong to the benchmarks' authors and are fetched again. Knows pipelines and stores; prints nothing.
"""

from __future__ import annotations

import fnmatch
import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loom_report import ledger

from loom_core.contract.errors import RunError, UsageError
from loom_core.pipeline import Result, continued_config, prepare, run, stored_config
from loom_core.registry.plugins import Catalog
from loom_core.run.runner import Progress
from loom_core.run.selection import select
from loom_core.run.settings_diff import Knob, differing, settings, shown
from loom_core.run.store import RunFolder, read_json

MOST_UNPACKED, MOST_RATIO = 64 << 20, 200
"""What a bundle may unpack to: so many bytes, and so many for each of its own. JSON lines pack some thirty to one."""
MEMBERS = ("manifest.json", "plan.json", "samples.jsonl", "jobs.jsonl.gz", "responses.jsonl", "official.json")
SCORES = "scores-*.jsonl"
SHOWN = 8


def bundle(folder: RunFolder, target: Path) -> int:
    """Write a run's bundle; returns its bytes. The same folder gives the same bytes. Raises RunError without a plan."""
    if not folder.prepared or not folder.manifest.exists():
        raise RunError("there is nothing to bundle", where=str(folder.path), why="the folder holds no prepared run")
    stored_config(folder)
    if not target.parent.is_dir() or target.is_dir():
        why = "it is a folder" if target.is_dir() else "its folder does not exist"
        raise UsageError("the bundle cannot be written", where=str(target), why=why, hint="name a file in a folder")
    paths = [folder.path / name for name in MEMBERS] + sorted(folder.path.glob(SCORES))
    partial = target.with_name(target.name + ".partial")
    with (
        partial.open("wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in paths:
            if path.exists():
                entry = tarfile.TarInfo(path.name)
                entry.size = path.stat().st_size
                with path.open("rb") as content:
                    archive.addfile(entry, content)
    partial.replace(target)
    return target.stat().st_size


@contextmanager
def opened(source: Path) -> Iterator[RunFolder]:
    """The run folder of a folder or a bundle; a bundle's is temporary, and only its files of known names are read."""
    if source.is_dir():
        yield RunFolder(source)
        return
    with tempfile.TemporaryDirectory(prefix="loom-") as place:
        try:
            with tarfile.open(source, "r:gz") as archive:
                _unpack(archive, Path(place), MOST_UNPACKED + MOST_RATIO * source.stat().st_size)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            hint = "give a run folder, or what `loom report RUN --bundle FILE` wrote"
            raise RunError("not a bundle", where=str(source), why=str(error), hint=hint) from error
        yield RunFolder(Path(place))


def _unpack(archive: tarfile.TarFile, place: Path, most: int) -> None:
    """Write the files of known names to a folder. Raises tarfile.ReadError where there is more than `most` bytes of
    anything: reading past an entry unpacks it too.
    """
    for entry in archive:
        most -= entry.size
        if most < 0:
            raise tarfile.ReadError(f"{entry.name} would unpack to {entry.size:,} bytes, more than a bundle may hold")
        known = entry.name in MEMBERS or (fnmatch.fnmatch(entry.name, SCORES) and "/" not in entry.name)
        content = archive.extractfile(entry) if known and entry.isfile() else None
        if content is not None:
            with content, (place / entry.name).open("wb") as file:
                shutil.copyfileobj(content, file)


@dataclass(frozen=True)
class Again:
    """A run made again. circumstances: how it was carried out differently (libraries, machine)."""

    result: Result
    circumstances: list[Knob]


def reproduce(
    before: RunFolder,
    given: Mapping[str, Any],
    catalog: Catalog,
    command: list[str],
    progress: Progress,
    *,
    trusted: bool = False,
) -> Again:
    """Run what a run asked again, into the folder `given["out"]`. given: settings to replace: where the model, the data
    and the folder are on this machine. What is asked is the bundle's; what reaches beyond it is this command line's, or
    is trusted (see `trust`).

    Raises RunError, before the model is asked anything, where the model, the data, the tasks, the methods or the
    prompts are not those of the first run, or where the answers of the first run cannot be read.
    """
    if not before.prepared:
        raise RunError("there is nothing to reproduce", where=str(before.path), why="it holds no plan.json")
    config = continued_config(before, {**HERE, **given}, catalog, trusted=trusted)
    _refuse_unreadable(before)
    selection = select(config, catalog)
    folder = RunFolder(Path(str(config.out)))
    if folder.path.resolve() == before.path.resolve():
        where, hint = str(folder.path), "choose another --out"
        raise UsageError("a run cannot be made again in its own folder", where=where, hint=hint)
    with folder.writing():
        prepare(folder, selection, command)
        knobs = _differing(before, folder)
        asked = [knob for knob in knobs if knob.asked]
        if asked:
            folder.discard()
            lines = [f"{k.group} {k.name}: {shown(k.first)[:60]} → {shown(k.second)[:60]}" for k in asked[:SHOWN]]
            more = [f"and {len(asked) - SHOWN} more"] if len(asked) > SHOWN else []
            raise RunError(
                "this would not be the same run",
                why="\n        ".join([*lines, *more]),
                hint="use the model, data and versions of the first run, or start a new run with `loom run`",
            )
    return Again(run(config, catalog, command, progress), [knob for knob in knobs if not knob.asked])


HERE: Mapping[str, Any] = {"python": None, "devices": (), "data_dir": None, "offline": False}
"""How a run is carried out belongs to this machine, whatever the first one was."""


def _refuse_unreadable(before: RunFolder) -> None:
    """Raise RunError where there would be nothing to compare: before anything is run."""
    answered = ledger.read(before, read_json(before.plan))
    if not any(answer.state == "answered" for rows in answered.answers.values() for answer in rows):
        why = str(answered.damage) or "it records no answer to a planned question"
        raise RunError("there is nothing to compare with", where=str(before.path), why=why)


OWN = {("model", "name"), ("tasks", "distribution"), ("server", "distribution")}
"""Settings that may differ in a run made again: a name, and the version of a distribution (behaviour has its own)."""


def _differing(before: RunFolder, after: RunFolder) -> list[Knob]:
    """What differs between two prepared runs, but for names and what is known only after a run."""
    sides = []
    for folder in (before, after):
        manifest = dict(read_json(folder.manifest))
        sides.append(settings(read_json(folder.plan), {**manifest, "workers": []}))
    return [knob for knob in differing(*sides) if (knob.group, knob.name.rpartition(".")[2]) not in OWN]
