"""Names of a package that are imported when they are first used: a top level that names much and loads nothing.

Python's own way (PEP 562). Type checkers read the imports under TYPE_CHECKING that stand beside it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package. homes: names, separated by blanks, by their module."""
    home = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        """The name, imported now and kept."""
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home})

    return get, listed, sorted(home)
