"""What a file is: its digests and size, and whether it only stands in for the file that was meant. Knows no pin."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from loom_core.contract.errors import DataError

LFS = b"version https://git-lfs"
"""How a git-lfs pointer begins (git-lfs specification, "The Pointer"); a pointer has fewer than 1024 bytes."""

POINTER_BYTES = 1024
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Digests:
    """sha256 and git_blob: hex. git's id of a content is sha1("blob LENGTH\\0" + bytes)."""

    sha256: str
    git_blob: str
    n_bytes: int


def digests(path: Path) -> Digests:
    """The digests of a file, read once. Raises DataError where it cannot be read."""
    sha256 = hashlib.sha256()
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            while chunk := file.read(CHUNK_BYTES):
                sha256.update(chunk)
                git.update(chunk)
            return Digests(sha256.hexdigest(), git.hexdigest(), file.tell())
    except OSError as error:
        raise DataError("a data file cannot be read", where=str(path), why=str(error)) from error


def refuse_stand_in(path: Path, name: str, *, pinned: bool, hint: str = "") -> None:
    """Raise DataError where a file is a git-lfs pointer or, unless its content is pinned, a placeholder of a byte.

    name: what messages call the file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(POINTER_BYTES)
    except OSError as error:
        raise DataError("a data file cannot be read", where=str(path), why=str(error)) from error
    if head.startswith(LFS) and len(head) < POINTER_BYTES:
        raise DataError(
            f"found a git-lfs pointer in place of {name}",
            where=str(path),
            why="the repository keeps the file itself in git-lfs",
            hint=hint or "run `git lfs pull` in the checkout it was copied from, and copy the file itself",
        )
    if len(head) <= 1 and not pinned:
        raise DataError(
            f"found a placeholder of {len(head)} byte{'s' * (len(head) != 1)} in place of {name}",
            where=str(path),
            why="no data is in it",
            hint=hint or "put the file itself in its place",
        )
