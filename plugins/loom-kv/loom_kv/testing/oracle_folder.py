"""The layout of an oracle folder: `models/`, `prompts.json`, `expected/METHOD.json`. Knows files; compares nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loom_core.api import DataError
from loom_kv.testing.host import Engine, Host


class OracleFolder:
    """Prompts, files of recorded results, and models, loaded once, on a host. Raises DataError for another folder."""

    def __init__(self, folder: Path, host: Host) -> None:
        self.folder, self.host = folder, host
        self.files = sorted((folder / "expected").glob("*.json"))
        if not self.files:
            raise DataError("no recorded results here", where=str(folder), hint="a folder with expected/METHOD.json")
        prompts = read_record(folder / "prompts.json")["prompts"]
        self.prompts = {str(prompt["id"]): tuple(prompt["ids"]) for prompt in prompts}
        self._engines: dict[str, Engine] = {}

    def engine(self, name: str) -> Engine:
        """The engine of `models/NAME`, in float32."""
        if name not in self._engines:
            path = self.folder / "models" / name
            if not path.is_dir():
                raise DataError(f"the oracle's model {name} is missing", where=str(path))
            self._engines[name] = self.host.engine(self.host.load(path))
        return self._engines[name]


def read_record(path: Path) -> Any:
    """A file of recorded results, or of prompts. Raises DataError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("this oracle file cannot be read", where=str(path), why=str(error)) from error
