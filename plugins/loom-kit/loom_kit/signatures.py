"""What a package offers at its top level: each name, its home, the first sentence said of it, and its signature.

Reads which names those are, and what is said of them, from the source: those in `__all__` where it is written out, else
what is imported with `from x import a as a` and what the module defines itself. Signatures come from the imported
things, with annotations as they are written. Knows no package by name.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

INDENT = "    "
LONGEST = 160
"""Characters of a value that is shown."""


@dataclass(frozen=True)
class Offered:
    """A public name. home: the module that defines it. summary: the first sentence said of it there, or nothing."""

    name: str
    home: str
    summary: str
    value: Any


def offered(package: str) -> list[Offered]:
    """What the top level of a package offers, by name."""
    module = importlib.import_module(package)
    names = {name: _home(package, name) for name in _public(package)}
    return [Offered(name, home, _summary(home, name), getattr(module, name)) for name, home in sorted(names.items())]


def dump(packages: list[str]) -> Iterator[str]:
    """The lines of a dump: a section for each package, and for each module that one of them offers."""
    for package in packages:
        yield f"# {package}"
        yield ""
        for item in offered(package):
            yield from _lines(item)
        yield ""


def _source(module: str) -> ast.Module:
    path = importlib.import_module(module).__file__
    if path is None:
        raise ValueError(f"{module} has no file: a package without __init__.py offers nothing")
    return ast.parse(Path(path).read_text("utf-8"))


def _imports(module: str, *, offered_only: bool = False) -> dict[str, tuple[str, str]]:
    """What a module has from others, by name: the module it is from, and what it is called there."""
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(_source(module))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if not offered_only or alias.asname == alias.name
    }


def _public(package: str) -> set[str]:
    names = {*_imports(package, offered_only=True), *_defined(package)}
    _, listed = _defined(package).get("__all__", ("", None))
    if isinstance(listed, (ast.List, ast.Tuple)):
        names = set(ast.literal_eval(listed))
    return {name for name in names if not name.startswith("_")}


def _defined(module: str) -> dict[str, tuple[str, ast.expr | None]]:
    """What a module defines, by name: the first sentence said of it, and the value where it is assigned one."""
    found: dict[str, tuple[str, ast.expr | None]] = {}
    body = _source(module).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = _first_sentence(ast.get_docstring(node)), None
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            said = after.value if isinstance(after, ast.Expr) else None
            text = said.value if isinstance(said, ast.Constant) and isinstance(said.value, str) else ""
            found.update(
                {target.id: (_first_sentence(text), node.value) for target in targets if isinstance(target, ast.Name)}
            )
    return found


def _first_sentence(text: str | None) -> str:
    paragraph = " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[^.][^.]\.)(?<!e\.g\.)(?<!i\.e\.) ", paragraph, maxsplit=1)[0]


def _home(module: str, name: str) -> str:
    """The module that defines a name: imports are followed; a module that is offered is its own home."""
    origin = _imports(module).get(name)
    if origin is None or name in _defined(module):
        return module
    if isinstance(getattr(importlib.import_module(origin[0]), origin[1]), ModuleType):
        return f"{origin[0]}.{origin[1]}"
    return _home(*origin)


def _summary(home: str, name: str) -> str:
    """What its home says of a name; of an assigned one of which nothing is said, its value."""
    if name not in _defined(home):
        return _first_sentence(ast.get_docstring(_source(home)))
    text, value = _defined(home)[name]
    return text or (f"`{_assigned(home, name)}`" if value is not None else "")


# --- signatures ------------------------------------------------------------------------------------------------------


def _lines(item: Offered) -> Iterator[str]:
    value = item.value
    if isinstance(value, ModuleType):
        yield f"module {item.name}"
        own = [name for name in _defined(item.home) if not name.startswith("_")]
        for name in sorted(own):
            for line in _lines(Offered(name, item.home, "", getattr(value, name))):
                yield INDENT + line
    elif inspect.isfunction(inspect.unwrap(value)):
        yield f"def {item.name}{_signature(value)}"
    elif assigned := _assigned(item.home, item.name):
        yield f"{item.name} = {assigned}"
    else:
        yield from _class(item.name, value)


def _class(name: str, kind: type) -> Iterator[str]:
    bases = [base.__name__ for base in kind.__bases__ if base is not object and base.__name__ != "Generic"]
    yield f"class {name}({', '.join(bases)})" if bases else f"class {name}"
    if issubclass(kind, enum.Enum):
        yield from (f"{INDENT}{choice.name} = {choice.value!r}" for choice in kind)
        return
    for line in _fields(kind):
        yield INDENT + line
    made = dataclasses.is_dataclass(kind) or "Protocol" in bases
    for member, value in sorted(vars(kind).items()):
        public = not member.startswith("_") or (member == "__init__" and not made)
        if not public or member in getattr(kind, "__annotations__", {}):
            continue
        if isinstance(value, property):
            yield f"{INDENT}property {member}{_returned(value.fget)}"
        elif isinstance(value, functools.cached_property):
            yield f"{INDENT}property {member}{_returned(value.func)}"
        elif isinstance(value, (classmethod, staticmethod)):
            yield f"{INDENT}{type(value).__name__} {member}{_signature(value.__func__)}"
        elif inspect.isfunction(inspect.unwrap(value)):
            yield f"{INDENT}def {member}{_signature(value)}"
        else:
            yield f"{INDENT}{member} = {_constant(value)}"


def _fields(kind: type) -> Iterator[str]:
    """The annotated names of a class itself, in their order, with defaults where they have them."""
    made = {field.name: field for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    own: dict[str, Any] = dict(vars(kind))
    given = {name: field.default for name, field in made.items()} or own.get("_field_defaults", own)
    for name, annotation in vars(kind).get("__annotations__", {}).items():
        if name.startswith("_"):
            continue
        factory, default = getattr(made.get(name), "default_factory", dataclasses.MISSING), ""
        if factory is not dataclasses.MISSING:
            default = f" = {_constant(factory)}()".replace("...()", "...")
        elif given.get(name, dataclasses.MISSING) is not dataclasses.MISSING:
            default = f" = {_constant(given[name])}"
        yield f"{name}: {_written(annotation)}{default}"


def _written(annotation: object) -> str:
    """An annotation as it is in the source."""
    text = getattr(annotation, "__forward_arg__", annotation)
    return text if isinstance(text, str) else inspect.formatannotation(annotation)


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(
            annotation=_shown(parameter.annotation, _written), default=_shown(parameter.default, _constant)
        )
        for parameter in signature.parameters.values()
    ]
    return str(
        signature.replace(parameters=parameters, return_annotation=_shown(signature.return_annotation, _written))
    )


@dataclass(frozen=True)
class _Shown:
    """Prints as the text it is given, without quotes."""

    text: str

    def __repr__(self) -> str:
        return self.text


def _shown(value: Any, write: Callable[[Any], str]) -> Any:
    return value if value is inspect.Signature.empty else _Shown(write(value))


def _returned(function: Any) -> str:
    annotation = inspect.signature(function).return_annotation
    return "" if annotation is inspect.Signature.empty else f" -> {_written(annotation)}"


def _assigned(home: str, name: str) -> str:
    """The value that a module assigns to a name, as its source has it; only its type where that is long."""
    _, value = _defined(home).get(name, ("", None))
    if value is None:
        return ""
    text = ast.unparse(value)
    if text.isascii() and len(text) <= LONGEST:
        return text
    return f"<{type(getattr(importlib.import_module(home), name)).__name__}>"


def _constant(value: Any) -> str:
    """A default where it is short and prints the same on any machine, else its type."""
    if isinstance(value, type) or inspect.isfunction(value) or inspect.isbuiltin(value):
        return str(value.__name__).replace("<lambda>", "...")
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({sorted(value, key=repr)!r})" if value else f"{type(value).__name__}()"
    text = repr(value)
    if " at 0x" in text or len(text) > LONGEST or not text.isascii():
        return f"<{type(value).__name__}>"
    return text
