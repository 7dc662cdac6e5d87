"""Where public names of loom have moved: old imports still work, with a warning that says what to write.

A finder at the end of the import path: it is asked only for modules that are not there. Each entry goes two minor
versions after the one in which its module moved.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

GONE_IN = "1.2"
"""The version of loom-core without these entries."""

HOMES = {
    "contracts": "contract.protocols",
    **{name: f"contract.{name}" for name in ("errors", "evidence", "hookspecs", "keys", "options", "prompt")},
    **{name: f"contract.{name}" for name in ("specs", "tomlfile", "types")},
    **{name: f"registry.{name}" for name in ("names", "plugins")},
    **{name: f"serving.{name}" for name in ("answering", "engines", "readers")},
    **{name: f"prompting.{name}" for name in ("ownprompt", "render", "truncate")},
    **{name: f"data.{name}" for name in ("literals", "pins", "records")},
    **{name: f"run.{name}" for name in ("config", "selection", "store")},
    **{name: f"score.{name}" for name in ("defusing", "tables")},
    "testing.doubles": "doubles.server",
}
"""Modules that moved within core, by their old names below `loom_core`."""

ELSEWHERE = {
    "certificate": "loom_parity.certificate",
    "chunking": "loom_rag.chunking",
    "described": "loom_bench_files.description",
    "parity": "loom_parity.contract",
    "reproduced": "loom_parity.published_cells",
    "retrieval": "loom_rag.retrieval",
    "stats": "loom_report.statistics.stats",
    "testing": "loom_kit",
    **{f"testing.{name}": f"loom_kit.{name}" for name in ("conformance", "gold", "rows", "runs", "tokenizers")},
    "upstream": "loom_parity.upstream",
    "windows": "loom_rag.window",
}
"""Modules that moved to other distributions."""


class Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds old modules: each hands out the names of its new home, and warns when it is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of an old module; None for any other."""
        if home(name) is None:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=name == "loom_core.testing")

    def exec_module(self, module: ModuleType) -> None:
        """Let the module answer with the names of its new home."""
        old = module.__name__
        new = home(old)
        assert new is not None
        real = importlib.import_module(new)
        write = "loom_core.api" if new.startswith("loom_core.") else new.partition(".")[0]
        warnings.warn(
            f"{old} has moved: import from {write} (this name goes in loom-core {GONE_IN})", DeprecationWarning, 2
        )
        module.__dict__["__getattr__"] = lambda name: getattr(real, name)


def home(name: str) -> str | None:
    """The new home of an old module; None where it is none."""
    package, _, inner = name.partition(".")
    if package != "loom_core":
        return None
    return f"loom_core.{HOMES[inner]}" if inner in HOMES else ELSEWHERE.get(inner)


def install() -> None:
    """Be asked for modules that are not there; once in a process."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
