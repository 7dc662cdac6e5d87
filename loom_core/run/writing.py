"""How files of a run folder are written: whole or not at all, or line by line, and what is in the way of it.

Every file of a run folder is written through this module, so that a full disk, a limit, a folder that is read-only or
gone ends in one RunError that names the file. Knows no layout.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from loom_core.contract.errors import RunError, advice
from loom_core.contract.types import Json

KEPT = "what was recorded before is kept: run the same command again then"


@contextmanager
def recording(path: Path, *, hint: str = "") -> Iterator[None]:
    """What the operating system refuses while `path` is written becomes a RunError; of other files it passes by."""
    try:
        yield
    except OSError as error:
        about = str(error.filename if error.filename is not None else path)
        if not (about.startswith(str(path)) or str(path).startswith(about)):
            raise
        raise RunError(
            "the run folder cannot be written",
            where=about,
            why=error.strerror or str(error),
            hint=hint or f"{advice(error)}; {KEPT}",
        ) from error
    except ValueError as error:  # a path that holds NUL, or half a character
        if "null byte" not in str(error) and not isinstance(error, UnicodeEncodeError):
            raise
        raise RunError("the run folder cannot be written", where=repr(str(path)), why=str(error)) from error


@contextmanager
def whole_file(path: Path, *, encoding: str = "utf-8") -> Iterator[TextIO]:
    """A text file that appears whole and on the disk when the block ends, or not at all where it fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        with recording(path):
            # A lone surrogate, which no encoding of files has, is spelt out as JSON spells it.
            with partial.open("w", encoding=encoding, errors="backslashreplace", newline="\n") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
    except BaseException:
        with suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)
        raise


def to_line(record: Mapping[str, Json]) -> str:
    """One JSON line. Lone surrogates and control characters are escaped, so a line is always one line."""
    return json.dumps(record, ensure_ascii=True, separators=(",", ":"), allow_nan=False) + "\n"


def write_json(path: Path, value: Json) -> None:
    """Write a JSON file whole or not at all: its existence means that it is complete."""
    with whole_file(path) as file:
        json.dump(value, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")


class Appender:
    """Appends records to a file; each is flushed, and synced to disk at most a second later and at close."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with recording(path):
            self._file: TextIO = path.open("a", encoding="ascii")
            self._end = path.stat().st_size
        self._synced = time.monotonic()

    def append(self, record: Mapping[str, Json]) -> int:
        """Write one record; returns its byte offset."""
        line, offset = to_line(record), self._end
        with recording(self._path):
            self._file.write(line)
            self._file.flush()
        self._end += len(line)
        if time.monotonic() - self._synced >= 1.0:
            self.sync()
        return offset

    def sync(self) -> None:
        """Force everything appended so far onto the disk."""
        with recording(self._path):
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close."""
        with recording(self._path):
            try:
                self.sync()
            finally:
                self._file.close()


def set_torn_tail_aside(path: Path) -> int:
    """Cut an unfinished last line (a writer was killed) into NAME.torn; returns how many bytes it had."""
    if not path.exists() or path.stat().st_size == 0:
        return 0
    with recording(path), path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end, tail = size, b""
        while end > 0 and b"\n" not in tail:
            start = max(0, end - 65536)
            file.seek(start)
            tail = file.read(end - start) + tail
            end = start
        keep = end + tail.rfind(b"\n") + 1
        if keep == size:
            return 0
        with path.with_suffix(".torn").open("ab") as aside:
            aside.write(tail[tail.rfind(b"\n") + 1 :] + b"\n")
        file.truncate(keep)
    return size - keep
