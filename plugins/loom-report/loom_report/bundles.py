"""Bundles of runs: a .tar.gz of what a run folder says of itself, its answers and its scores, without the contexts.

The contexts belong to the benchmarks' authors and are fetched again. Knows stores; prints nothing.
"""

from __future__ import annotations

import fnmatch
import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loom_core.contract.errors import RunError, UsageError
from loom_core.pipeline import stored_config
from loom_core.run.store import RunFolder

MOST_UNPACKED, MOST_RATIO = 64 << 20, 200
"""What a bundle may unpack to: so many bytes, and so many for each of its own. JSON lines pack some thirty to one."""
MEMBERS = ("manifest.json", "plan.json", "samples.jsonl", "jobs.jsonl.gz", "responses.jsonl", "official.json")
SCORES = "scores-*.jsonl"


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
