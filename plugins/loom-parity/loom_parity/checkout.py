"""A checkout of the authors' repository: which commit it is, whether its files are whole, their digests."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from loom_core.contract.errors import UsageError

SHOWN = 5
"""Files that a message names."""


def refuse(root: Path, files: Sequence[str], benchmark: str, commit: str) -> None:
    """Raise UsageError where `root` is not a checkout that has the adapter's files."""
    where = f"--upstream {root}"
    hint = f"check out the repository of {benchmark}'s authors at commit {commit} (loom info {benchmark})"
    if not root.is_dir():
        why = "it is a file" if root.exists() else "it does not exist"
        raise UsageError("not a folder", where=where, why=why, hint=hint)
    absent = [name for name in files if not (root / name).is_file()]
    if absent:
        shown = ", ".join(absent[:SHOWN]) + (f", … ({len(absent) - SHOWN} more)" if len(absent) > SHOWN else "")
        what = "not a checkout of the authors' repository" if len(absent) == len(files) else "an incomplete checkout"
        raise UsageError(what, where=where, why=f"{shown} {'is' if len(absent) == 1 else 'are'} missing", hint=hint)


def commit_of(root: Path) -> str:
    """The commit that is checked out; "" where git does not know the folder as the top of a repository."""
    top = _git(root, "rev-parse", "--show-toplevel")
    return _git(root, "rev-parse", "HEAD") if top and Path(top).resolve() == root.resolve() else ""


def changed(root: Path, files: Iterable[str]) -> list[str]:
    """Those files that differ from the commit, where git knows."""
    names = list(files)
    text = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *names) if names else ""
    return [line[2:].strip() for line in text.splitlines()]


def digests(root: Path, files: Iterable[str]) -> Mapping[str, str]:
    """sha256 of each file, by path."""
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in sorted(set(files))}


def _git(root: Path, *arguments: str) -> str:
    """What git says; "" where it fails or is not installed."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip("\n") if done.returncode == 0 else ""
