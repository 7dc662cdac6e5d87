"""TOML files that people write: read with or without a byte order mark; whatever is wrong with one is a ValueError."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file. Raises OSError where it cannot be read, ValueError where it is not TOML."""
    return parse_toml(path.read_bytes().decode("utf-8-sig"))


def parse_toml(text: str) -> dict[str, Any]:
    """The tables in a text. Raises ValueError."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("tables or lists are nested too deep") from error
