"""Functions of a checkout of the authors' program, with the modules that are not needed replaced by stand-ins.

For the child process of `loom parity`: it runs code of others, from the user's own checkout, and touches `sys.path` and
`sys.modules` of that process. Knows files and modules, no benchmark.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from loom_core.contract.types import Json


def module(root: Path, path: str, *, absent: Collection[str] = (), name: str = "") -> ModuleType:
    """The module of `path` (in the checkout `root`), executed now; its own folder and the root are importable.

    absent: top-level modules that get stand-ins ("torch", "openai"): whatever is imported from them can be named,
    called, subclassed and used as a decorator, and does nothing. name: the module's name where the file asks for one.
    Raises ImportError as the file does, FileNotFoundError where the checkout has no such file.
    """
    file = root / path
    if not file.is_file():
        raise FileNotFoundError(f"{path} is not in this checkout")
    name = name or file.stem
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    for folder in (str(root), str(file.parent)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    with stand_ins(absent):
        sys.modules[name] = made
        spec.loader.exec_module(made)
    return made


def notebook(root: Path, path: str, *, absent: Collection[str] = (), name: str = "", whole: bool = False) -> ModuleType:
    """The code cells of a notebook, executed now as one module: its imports and functions, or, whole, every line.

    absent: as for `module`. name: the module's `__name__`; the module is not entered in `sys.modules`. Raises
    FileNotFoundError where the checkout has no such file, and whatever the cells raise.
    """
    file = root / path
    if not file.is_file():
        raise FileNotFoundError(f"{path} is not in this checkout")
    cells = json.loads(file.read_text("utf-8"))["cells"]
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    if not whole:
        kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
        tree.body = [line for line in tree.body if isinstance(line, kept)]
    with stand_ins(absent):
        return _executed(tree, file, name or file.stem)


def script(root: Path, path: str, *, constants: Mapping[str, Json]) -> ModuleType:
    """A script, run now as the main module with other values for some names that it sets at its top: its switches.

    Raises FileNotFoundError where the checkout has no such file, ValueError where it sets no such name, and what the
    script raises.
    """
    file = root / path
    if not file.is_file():
        raise FileNotFoundError(f"{path} is not in this checkout")
    tree, left = ast.parse(file.read_text("utf-8")), dict(constants)
    for line in tree.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name) and line.targets[0].id in left:
            line.value = ast.copy_location(ast.Constant(left.pop(line.targets[0].id)), line.value)
    if left:
        raise ValueError(f"{path} sets no {', '.join(left)}")
    return _executed(tree, file, "__main__")


def _executed(tree: ast.Module, file: Path, name: str) -> ModuleType:
    loader = _Tree(tree, str(file))
    made = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, loader, origin=str(file)))
    loader.exec_module(made)
    return made


class _Tree(importlib.abc.InspectLoader):
    def __init__(self, tree: ast.Module, file: str) -> None:
        self._tree, self._file = tree, file

    def get_source(self, fullname: str) -> None:
        """None: what is executed is not what is in the file."""

    def get_code(self, fullname: str) -> CodeType:
        """The tree, compiled under the file's name."""
        return self.source_to_code(self._tree, self._file)


@contextmanager
def stand_ins(absent: Collection[str]) -> Iterator[None]:
    """While it is open, these top-level modules and all below them are stand-ins; what was imported before stays."""
    finder = _Finder(absent)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in finder.names}
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in finder.names]:
            del sys.modules[name]
        sys.modules.update(hidden)


class Absent:
    """What a stand-in module gives for any name: callable, subclassable, a decorator that changes nothing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Absent(f"{self._name}.{name}")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """A decorated function as it is, else another stand-in."""
        if len(arguments) == 1 and not named and (isinstance(arguments[0], type) or hasattr(arguments[0], "__code__")):
            return arguments[0]
        return self

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return ()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __repr__(self) -> str:
        return f"<stand-in for {self._name}>"


class _Module(ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names: Collection[str]) -> None:
        self.names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A stand-in for an absent module; nothing for others."""
        if fullname.partition(".")[0] not in self.names:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """An empty stand-in."""
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is to be executed."""
