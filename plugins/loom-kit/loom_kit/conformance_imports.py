"""What a plugin may import of core: `loom_core.api` and its parts. Reads sources with `ast`; imports nothing.

Whatever else core holds may change with any version. Knows no kind of plugin.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from loom_kit.rows import NotChecked, Row, attempt

CHECK = "imports only the public interface"
CORE = "loom_core"
PUBLIC = f"{CORE}.api"
OWN = frozenset(("loom-core", "loom-report", "loom-lab", "loom-kit", "loom-parity"))
"""Distributions that stand on core's rooms and are released with it."""
IMPORTERS = ("import_module", "__import__", "find_spec")
"""Functions that import what a text names."""
SHOWN = 5
"""Places named in one row."""


def check_imports(package: str, distribution: str) -> Iterator[Row]:
    """One row for the package that a distribution registers; none for loom's own distributions."""
    if distribution not in OWN:
        yield attempt(package, CHECK, partial(_only_public, package))


def _only_public(package: str) -> None:
    found: list[str] = []
    for name, path in _sources(package):
        try:
            tree = ast.parse(path.read_bytes(), filename=str(path))
        except (OSError, SyntaxError, ValueError) as error:
            raise NotChecked(f"{name} cannot be read: {error}") from error
        found += [f"{name}:{line} imports {module}" for line, module in sorted(set(private_imports(tree)))]
    shown = found[:SHOWN] + ([f"{len(found) - SHOWN} more"] if len(found) > SHOWN else [])
    assert not found, f"{'; '.join(shown)}: may change with any version; import from {PUBLIC} and its parts"


def _sources(package: str) -> list[tuple[str, Path]]:
    """The source files of an installed package (or single module), each with its path as a reader looks for it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise NotChecked(f"{package} is not found")
    if spec.submodule_search_locations is None:
        files = [(Path(spec.origin).name, Path(spec.origin))] if spec.origin and spec.origin.endswith(".py") else []
    else:
        roots = map(Path, spec.submodule_search_locations)
        files = [
            (f"{package}/{path.relative_to(root).as_posix()}", path) for root in roots for path in root.rglob("*.py")
        ]
    if not files:
        raise NotChecked(f"{package} has no Python sources here")
    return sorted(files)


def private_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of everything in a module's source that names a part of core which is not public.

    Imports within functions and those for type checkers alone count too, and names reached through `loom_core.`.
    """
    for node in ast.walk(tree):
        for name in _named(node):
            if not _public(name):
                yield getattr(node, "lineno", 0), name


def _named(node: ast.AST) -> Iterator[str]:
    """The dotted names of core that a node imports or reaches."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str(module), names=names, level=0):
            yield from (f"{module}.{alias.name}" for alias in names)
        case ast.Attribute(value=ast.Name(id=top), attr=attribute) if top == CORE:
            yield f"{top}.{attribute}"
        case ast.Call(func=called, args=[ast.Constant(value=str(module)), *_]):
            if ast.unparse(called).rpartition(".")[2] in IMPORTERS:
                yield module


def _public(name: str) -> bool:
    """Whether a dotted name is none of core's, or one that stays: the interface, and dunder names such as a version."""
    top, *rest = name.split(".")
    if top != CORE or not rest:
        return True
    if all(part.startswith("__") and part.endswith("__") for part in rest):
        return True
    return rest[0] == "api" and not any(part.startswith("_") and not part.startswith("__") for part in rest)
