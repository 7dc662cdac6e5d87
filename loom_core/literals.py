"""Constants of an upstream Python file, read through `ast` and never executed.

Knows literals, sums of literals, names of other constants, and f-strings; anything else is refused by name and line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from loom_core.errors import DataError, nearest


class Template(str):
    """What an f-string became: text for `str.format`. A plain string is no Template, whatever braces it has."""

    __slots__ = ()


def constants(text: str, names: Iterable[str], *, where: str) -> dict[str, Any]:
    """The values of `names` in the Python source `text`.

    A name is one assigned at module level, or `Owner.name` for one assigned in the body of a class or function; of
    several assignments the last counts. An f-string becomes a `Template` for `str.format`: its plain names (with their
    conversions and constant format specs) become fields, its other braces are doubled. A plain string stays as it
    is. where: the file, for messages. Raises DataError.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise DataError("an upstream Python file cannot be parsed", where=where, why=str(error)) from error
    scope = _Scope.of(tree.body, where)
    return {name: scope.value(name) for name in names}


@dataclass
class _Scope:
    """The assignments of one body, and of the classes and functions in it."""

    where: str
    nodes: dict[str, ast.expr] = field(default_factory=dict)
    refused: dict[str, ast.AST] = field(default_factory=dict)
    resolving: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, body: list[ast.stmt], where: str) -> _Scope:
        scope = cls(where)
        scope._collect(body, "")
        return scope

    def _collect(self, body: list[ast.stmt], prefix: str) -> None:
        for statement in body:
            if isinstance(statement, ast.Assign):
                for target in statement.targets:
                    self._assign(target, statement.value, prefix)
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                self._assign(statement.target, statement.value, prefix)
            elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
                self.refused[prefix + statement.target.id] = statement
            elif isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                self._collect(statement.body, f"{prefix}{statement.name}.")

    def _assign(self, target: ast.expr, value: ast.expr, prefix: str) -> None:
        if isinstance(target, ast.Name):
            self.nodes[prefix + target.id] = value
            self.refused.pop(prefix + target.id, None)
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
            # Where the counts differ (a starred item), the names stay unknown and are refused when asked for.
            same = len(target.elts) == len(value.elts)
            for inner, item in zip(target.elts, value.elts, strict=True) if same else ():
                self._assign(inner, item, prefix)

    def value(self, name: str) -> Any:
        """The value of a (dotted) name."""
        if name in self.refused:
            raise self._refuse(self.refused[name], f"{name} is changed after its assignment")
        if name not in self.nodes:
            raise DataError(
                f"no constant {name!r} in an upstream file", where=self.where, hint=nearest(name, self.nodes)
            )
        if name in self.resolving:
            raise self._refuse(self.nodes[name], f"{name} refers to itself")
        self.resolving.add(name)
        try:
            return self._read(self.nodes[name], name.rpartition(".")[0])
        finally:
            self.resolving.discard(name)

    def _read(self, node: ast.expr, owner: str) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.JoinedStr():
                return self._template(node)
            case ast.Tuple():
                return tuple(self._read(item, owner) for item in node.elts)
            case ast.List():
                return [self._read(item, owner) for item in node.elts]
            case ast.Set():
                return {self._read(item, owner) for item in node.elts}
            case ast.Dict() if all(key is not None for key in node.keys):
                keys = [self._read(key, owner) for key in node.keys if key is not None]
                return dict(zip(keys, (self._read(item, owner) for item in node.values), strict=True))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                value = self._number(node.operand, owner)
                return -value if isinstance(node.op, ast.USub) else value
            case ast.BinOp(op=ast.Add()):
                return self._sum(node, owner)
            case ast.BinOp(op=ast.Mult()):
                return self._number(node.left, owner) * self._number(node.right, owner)
            case ast.Name():
                near = f"{owner}.{node.id}" if owner else node.id
                return self.value(near if near in self.nodes else node.id)
        raise self._refuse(node, f"a {type(node).__name__} is no literal")

    def _sum(self, node: ast.BinOp, owner: str) -> Any:
        left, right = self._read(node.left, owner), self._read(node.right, owner)
        if isinstance(left, str) and isinstance(right, str) and Template in (type(left), type(right)):
            return Template(_escaped(left) + _escaped(right))
        if type(left) is type(right) and isinstance(left, (str, bytes, list, tuple, int, float)):
            return left + right
        raise self._refuse(node, "a sum of unlike values")

    def _number(self, node: ast.expr, owner: str) -> Any:
        value = self._read(node, owner)
        if isinstance(value, (int, float, complex)) and not isinstance(value, bool):
            return value
        raise self._refuse(node, "a number was expected")

    def _template(self, node: ast.JoinedStr) -> Template:
        parts = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                parts.append(_escape(str(part.value)))
            elif isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name):
                conversion = f"!{chr(part.conversion)}" if part.conversion != -1 else ""
                parts.append("{" + part.value.id + conversion + self._spec(part) + "}")
            else:
                raise self._refuse(node, "an f-string with more than plain names")
        return Template("".join(parts))

    def _spec(self, part: ast.FormattedValue) -> str:
        if part.format_spec is None:
            return ""
        pieces = part.format_spec.values if isinstance(part.format_spec, ast.JoinedStr) else [part.format_spec]
        if not all(isinstance(piece, ast.Constant) for piece in pieces):
            raise self._refuse(part, "an f-string with a computed format")
        return ":" + "".join(str(piece.value) for piece in pieces if isinstance(piece, ast.Constant))

    def _refuse(self, node: ast.AST, why: str) -> DataError:
        line = getattr(node, "lineno", "?")
        return DataError(
            "an upstream constant cannot be read without running the file",
            where=f"{self.where}, line {line}",
            why=why,
            hint="loom never executes upstream files: the plugin that pins this file needs another way to read it",
        )


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _escaped(text: str) -> str:
    return text if isinstance(text, Template) else _escape(text)
