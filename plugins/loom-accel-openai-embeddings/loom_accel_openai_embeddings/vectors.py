"""Vectors that were asked for once, on disk: an SQLite file that processes share. Knows keys and bytes; no endpoint."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

MOST_PARAMETERS = 500


class Vectors:
    """float32 vectors by key. A file that cannot be used is passed over: nothing depends on it but time."""

    def __init__(self, path: Path | None) -> None:
        self._memory: dict[str, np.ndarray] = {}
        self._file = None if path is None else _opened(path)

    def get(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors that are there."""
        found = {key: self._memory[key] for key in keys if key in self._memory}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        for start in range(0, len(missing), MOST_PARAMETERS) if self._file is not None else ():
            part = missing[start : start + MOST_PARAMETERS]
            marks = ",".join("?" * len(part))
            for key, data in self._rows(f"SELECT key, data FROM vectors WHERE key IN ({marks})", part):
                found[key] = self._memory[key] = np.frombuffer(data, dtype="<f4")
        return found

    def put(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep these vectors."""
        self._memory.update(vectors)
        if self._file is None:
            return
        try:
            with self._file:
                rows = [(key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
                self._file.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
        except sqlite3.Error:
            self._file = None

    def _rows(self, query: str, values: Sequence[str]) -> Iterable[tuple[str, bytes]]:
        try:
            return list(self._file.execute(query, values)) if self._file is not None else []
        except sqlite3.Error:
            self._file = None
            return []

    def close(self) -> None:
        """Let the file go."""
        self._memory.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


def _opened(path: Path) -> sqlite3.Connection | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(path, timeout=30)
        file.execute("CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, data BLOB NOT NULL)")
    except (sqlite3.Error, OSError):
        return None
    return file
