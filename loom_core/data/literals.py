"""Constants of an upstream Python file, read through `ast` and never executed.

Knows literals, sums of literals, names of other constants, and f-strings; anything else is refused by name and line.
A name means what it would mean if the file ran: the last assignment before its use, at module level seen from a
function the last of all; a name that a parameter, a branch or a loop may change is not a constant.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from loom_core.contract.errors import DataError, nearest


class Template(str):
    """What an f-string with open names became: text for `str.format`. A plain string is not a Template, whatever braces
    it has, nor is an f-string of constants alone."""

    __slots__ = ()


def constants(text: str, names: Iterable[str], *, where: str) -> dict[str, Any]:
    """The values of `names` in the Python source `text`.

    A name is one assigned at module level, or `Owner.name` for one assigned in the body of a class or function, an
    attribute as `Class.__init__.self.name`; of several assignments the last counts. In an f-string, a name that is a
    constant of the file becomes its text. Where that leaves no other name, the f-string is the plain string that it
    would be when run, `{fields}` in the constants' texts included; otherwise it becomes a `Template` for `str.format`:
    the other names (with their conversions and constant format specs) are its fields, and all other braces are
    doubled. A plain string stays as it is.
    where: the file, for messages. Raises DataError.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise DataError("an upstream Python file cannot be parsed", where=where, why=str(error)) from error
    scope = _Scope.of(tree.body, where)
    return {name: scope.value(name) for name in names}


@dataclass
class _Scope:
    """The assignments of one file's bodies, by dotted name, in order.

    bound: how often each name of a body is bound there in any way, by the body's dotted name ("" for the module's).
    functions: the bodies that are functions. bodies: in which body a dotted name was assigned.
    """

    where: str
    nodes: dict[str, list[ast.expr]] = field(default_factory=dict)
    refused: dict[str, ast.AST] = field(default_factory=dict)
    bound: dict[str, Counter[str]] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    bodies: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, body: list[ast.stmt], where: str) -> _Scope:
        scope = cls(where)
        scope._collect(body, "")
        scope.bound[""].update(
            name
            for statement in body
            for node in ast.walk(statement)
            if isinstance(node, ast.Global)
            for name in node.names
        )
        return scope

    def _collect(self, body: list[ast.stmt], prefix: str) -> None:
        self.bound[prefix.removesuffix(".")] = Counter(_bound(body))
        for statement in body:
            if isinstance(statement, ast.Assign):
                for target in statement.targets:
                    self._assign(target, statement.value, prefix)
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                self._assign(statement.target, statement.value, prefix)
            elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
                self.refused[prefix + statement.target.id] = statement
            elif isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                inner = f"{prefix}{statement.name}"
                self._collect(statement.body, f"{inner}.")
                if not isinstance(statement, ast.ClassDef):
                    self.functions.add(inner)
                    self.bound[inner].update(one.arg for one in ast.walk(statement.args) if isinstance(one, ast.arg))

    def _assign(self, target: ast.expr, value: ast.expr, prefix: str) -> None:
        if isinstance(target, ast.Name):
            self.nodes.setdefault(prefix + target.id, []).append(value)
            self.bodies[prefix + target.id] = prefix.removesuffix(".")
            self.refused.pop(prefix + target.id, None)
        elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
            dotted = f"{prefix}{target.value.id}.{target.attr}"
            self.nodes.setdefault(dotted, []).append(value)
            self.bodies[dotted] = prefix.removesuffix(".")
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
            # Where the counts differ (a starred item), the names stay unknown and are refused when asked for.
            same = len(target.elts) == len(value.elts)
            for inner, item in zip(target.elts, value.elts, strict=True) if same else ():
                self._assign(inner, item, prefix)

    def value(self, name: str) -> Any:
        """The value of a (dotted) name after the whole file."""
        if name in self.refused:
            raise self._refuse(self.refused[name], f"{name} is changed after its assignment")
        if name not in self.nodes:
            raise DataError(
                f"no constant {name!r} in an upstream file", where=self.where, hint=nearest(name, self.nodes)
            )
        return self._read(self.nodes[name][-1], self.bodies[name])

    def _named(self, node: ast.Name, owner: str) -> Any:
        """What a name means where it is, in the body `owner`. Raises DataError where that is not a constant."""
        local = bool(owner) and (node.id in self.bound[owner] if owner in self.functions else self._before(node, owner))
        body = owner if local else ""
        dotted = f"{body}.{node.id}" if body else node.id
        known = self.nodes.get(dotted, [])
        if dotted in self.refused:
            raise self._refuse(self.refused[dotted], f"{dotted} is changed after its assignment")
        if not known:
            raise self._refuse(node, f"{node.id} is not a constant of the file")
        if self.bound[body][node.id] > len(known) or (body in self.functions and len(known) > 1):
            raise self._refuse(node, f"{node.id} is assigned in more than one place")
        late = owner in self.functions and not local  # a function is called after the module is whole
        found = known if late else self._before(node, body)
        if not found:
            raise self._refuse(node, f"{node.id} refers to itself, or to what comes later")
        return self._read(found[-1], body)

    def _before(self, node: ast.Name, body: str) -> list[ast.expr]:
        """The values that its name was given in a body before it."""
        known = self.nodes.get(f"{body}.{node.id}" if body else node.id, [])
        place = (node.lineno, node.col_offset)
        return [one for one in known if (one.end_lineno or one.lineno, one.end_col_offset or 0) <= place]

    def _read(self, node: ast.expr, owner: str) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.JoinedStr():
                return self._text(node, owner)
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
                return self._named(node, owner)
        raise self._refuse(node, f"a {type(node).__name__} is not a literal")

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

    def _text(self, node: ast.JoinedStr, owner: str) -> str:
        """An f-string: a plain string where all its names are constants, a Template where one is not."""
        parts: list[str] = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                parts.append(str(part.value))
            elif isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name):
                parts.append(self._filled(part, part.value, owner))
            else:
                raise self._refuse(node, "an f-string with more than plain names")
        if any(isinstance(part, Template) for part in parts):
            return Template("".join(map(_escaped, parts)))
        return "".join(parts)

    def _filled(self, part: ast.FormattedValue, name: ast.Name, owner: str) -> str:
        """The text of a name's place in an f-string; a field, as a Template, where the name is not a constant."""
        conversion, spec = chr(part.conversion) if part.conversion != -1 else "", self._spec(part)
        try:
            value = self._named(name, owner)
        except DataError:
            value = None
        if isinstance(value, Template) and not (conversion or spec):
            return value
        if isinstance(value, (str, int, float)) and not isinstance(value, Template):
            return f"{CONVERSIONS[conversion](value):{spec}}"
        return Template("{" + name.id + (conversion and f"!{conversion}") + (spec and f":{spec}") + "}")

    def _spec(self, part: ast.FormattedValue) -> str:
        if part.format_spec is None:
            return ""
        pieces = part.format_spec.values if isinstance(part.format_spec, ast.JoinedStr) else [part.format_spec]
        if not all(isinstance(piece, ast.Constant) for piece in pieces):
            raise self._refuse(part, "an f-string with a computed format")
        return "".join(str(piece.value) for piece in pieces if isinstance(piece, ast.Constant))

    def _refuse(self, node: ast.AST, why: str) -> DataError:
        line = getattr(node, "lineno", "?")
        return DataError(
            "an upstream constant cannot be read without running the file",
            where=f"{self.where}, line {line}",
            why=why,
            hint="loom never executes upstream files: the plugin that pins this file needs another way to read it",
        )


CONVERSIONS: dict[str, Callable[[Any], Any]] = {"": lambda value: value, "s": str, "r": repr, "a": ascii}


def _escaped(text: str) -> str:
    return text if isinstance(text, Template) else text.replace("{", "{{").replace("}", "}}")


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    """Every name that a body binds, as often as it does, without the bodies of its functions and classes."""
    for statement in body:
        left: list[ast.AST] = [statement]
        while left:
            node = left.pop()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield node.name
                continue
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                yield node.id
            elif isinstance(node, ast.alias):
                yield (node.asname or node.name).partition(".")[0]
            left.extend(ast.iter_child_nodes(node))
