"""Where a pinned file lies in a folder that a user filled: mirrors, checkouts, snapshots of the hub. Reads no file.

A mirror is laid out FOLDER/PATH-IN-UPSTREAM. A checkout or a snapshot that was put into it as it came is found too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from loom_core.contract.errors import DataError
from loom_core.contract.tomlfile import read_toml
from loom_core.data.pins import Pin

EXTRACTS = "EXTRACT.toml"


@dataclass(frozen=True, slots=True)
class Place:
    """A file in a mirror. inside: its path below `root`, the folder that its upstream's files lie in."""

    root: Path
    inside: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.root / self.inside

    def extract(self) -> str | None:
        """The sha256 that the folder's EXTRACT.toml gives, where the file is listed there as cut."""
        file = self.root / EXTRACTS
        if not file.is_file():
            return None
        try:
            rows = read_toml(file).get("file", [])
            return {str(row["path"]): str(row["sha256"]) for row in rows}.get(self.inside)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError("a mirror's list of extracts cannot be read", where=str(file), why=str(error)) from error


def find(mirror: Path, folder: str, pin: Pin, places: Sequence[str] = ()) -> Place | None:
    """The pinned file in a mirror: a member unpacked (at its own path, or beside its archive), or the file itself.

    places: other paths at which it may lie (`DataSource.places`), looked for last.
    """
    beside = str(PurePosixPath(pin.path).parent / pin.member) if pin.member is not None else pin.path
    for root in _roots(mirror, folder, pin):
        for inside in dict.fromkeys((pin.member or pin.path, beside, pin.path, *places)):
            if (root / inside).is_file():
                return Place(root, inside)
    return None


def _roots(mirror: Path, folder: str, pin: Pin) -> Iterator[Path]:
    """The folders that may hold the upstream's files, the documented one first."""
    name = pin.repo.rpartition("/")[2]
    yield mirror / folder
    for above in (mirror / folder, mirror):
        yield from (above / pin.repo, above / pin.repo.replace("/", "--"), above / name)
        yield above / f"{name}-{pin.revision}"  # an archive of a commit, unpacked
        yield from snapshots(above, pin)
    yield mirror


def snapshots(cache: Path, pin: Pin) -> Iterator[Path]:
    """The folders of a pin's revision in a cache of the hub, laid out as huggingface_hub does.

    Layout: datasets--OWNER--NAME/{snapshots/COMMIT/PATH,refs/NAME}, refs holding the commit of a branch.
    """
    if pin.host != "hf":
        return
    home = cache / f"datasets--{pin.repo.replace('/', '--')}"
    yield home / "snapshots" / pin.revision
    try:
        commit = (home / "refs" / pin.revision).read_text("ascii").strip()
    except (OSError, ValueError):
        return
    if commit and "/" not in commit:
        yield home / "snapshots" / commit


def hub_cache() -> Path:
    """The cache of huggingface_hub: HF_HUB_CACHE, or `hub` below HF_HOME."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
