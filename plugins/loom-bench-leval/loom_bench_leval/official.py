"""The authors' wording, read from their programs through `ast`; nothing of them is executed or shipped.

Source: OpenLMLab/LEval, Baselines/LEval_config.py (get_sys_prompt: which system prompt a task gets) and
Baselines/turbo16k-test.py (the frames around document and instruction, and sci_fi's second question). A program that
is built otherwise than assumed here is refused by name and line, never guessed at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from loom_bench_leval.wording import Second, Wording, kind_of
from loom_core.api import DataError, Json

FUNCTION = "get_sys_prompt"


class Unreadable(DataError):
    """A program of the authors that is built otherwise than this reader knows."""


def read_wording(config: str, script: str, tasks: Sequence[str], *, where: str) -> Wording:
    """The authors' wording. config, script: the texts of the two programs. Raises Unreadable."""
    function = next((n for n in ast.walk(_parsed(config, where)) if _named(n)), None)
    if not isinstance(function, ast.FunctionDef):
        raise Unreadable("the authors' prompts cannot be read", where=where, why=f"no function {FUNCTION}")
    system = {task: _system(function, task, where) for task in tasks}
    tree = _parsed(script, where)
    frames = {fields: texts for fields, texts in _frames(tree).items() if len(texts) == 1}
    try:
        [exam], [open_] = frames["document", "instruction"], frames["document", "instruction", "words"]
    except KeyError as error:
        found = "; ".join(f"{', '.join(fields)}: {len(texts)}" for fields, texts in _frames(tree).items())
        why = f"not one frame with {error}, but {found or 'none'}"
        raise Unreadable("the authors' prompts cannot be read", where=where, why=why) from error
    return Wording(name="official", system=system, exam=exam, open=open_, second=_second(tree, where))


def _parsed(text: str, where: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise Unreadable("the authors' prompts cannot be read", where=where, why=str(error)) from error


def _named(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == FUNCTION


# --- the system prompt: a function of constants and of the task's name, evaluated as far as it is one ----------------


def _system(function: ast.FunctionDef, task: str, where: str) -> str:
    metric = {"open": "ngram_eval"}.get(kind_of(task), "exam_eval")
    names: dict[str, Json] = {a.arg: f"{task}.pred.jsonl" for a in function.args.args if a.arg != "args"}
    try:
        value = _Static({**names, "args.metric": metric}, where).run(function.body)
    except TypeError as error:
        raise Unreadable("the authors' prompts cannot be read", where=where, why=str(error)) from error
    if not isinstance(value, str):
        raise Unreadable("the authors' prompts cannot be read", where=where, why=f"{FUNCTION} gives no text for {task}")
    return value


_NOTHING = object()


@dataclass
class _Static:
    """Evaluates if-chains, assignments and returns over texts; refuses everything else."""

    names: dict[str, Json]
    where: str

    def run(self, body: Sequence[ast.stmt]) -> Json:
        for statement in body:
            match statement:
                case ast.Return(value=node) if node is not None:
                    return self.value(node)
                case ast.If():
                    branch = statement.body if self.value(statement.test) else statement.orelse
                    if (value := self.run(branch)) is not _NOTHING:
                        return value
                case ast.Assign(targets=[ast.Name(id=name)]):
                    self.names[name] = self.value(statement.value)
                case ast.AugAssign(target=ast.Name(id=name), op=ast.Add()):
                    self.names[name] = self.names.get(name) + self.value(statement.value)
                case ast.Expr() | ast.Pass():
                    pass
                case _:
                    self.refuse(statement)
        return _NOTHING

    def value(self, node: ast.expr) -> Json:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() if node.id in self.names:
                return self.names[node.id]
            case ast.Attribute(value=ast.Name(id=owner)) if f"{owner}.{node.attr}" in self.names:
                return self.names[f"{owner}.{node.attr}"]
            case ast.List() | ast.Tuple() | ast.Set():
                return [self.value(item) for item in node.elts]
            case ast.BoolOp():
                values = (bool(self.value(item)) for item in node.values)
                return all(values) if isinstance(node.op, ast.And) else any(values)
            case ast.UnaryOp(op=ast.Not()):
                return not self.value(node.operand)
            case ast.BinOp(op=ast.Add()):
                return self.value(node.left) + self.value(node.right)
            case ast.JoinedStr():
                return "".join(str(self.value(part)) for part in node.values)
            case ast.FormattedValue():
                return self.value(node.value)
            case ast.Call(func=ast.Attribute(attr="lower" | "strip" as method), args=[]):
                return getattr(str(self.value(node.func.value)), method)()  # type: ignore[attr-defined]
            case ast.Compare(ops=[op], comparators=[right]):
                return self.compare(self.value(node.left), op, self.value(right), node)
        self.refuse(node)

    def compare(self, left: Json, op: ast.cmpop, right: Json, node: ast.expr) -> bool:
        match op:
            case ast.In() | ast.NotIn():
                return (left in right) is isinstance(op, ast.In)
            case ast.Eq() | ast.NotEq():
                return (left == right) is isinstance(op, ast.Eq)
        self.refuse(node)

    def refuse(self, node: ast.stmt | ast.expr) -> NoReturn:
        raise Unreadable(
            "the authors' prompts cannot be read",
            where=f"{self.where}, line {node.lineno}",
            why=f"a {type(node).__name__} decides the prompt",
        )


# --- the frames: texts with a place for the document and one for the instruction -------------------------------------


def _frames(tree: ast.Module) -> dict[tuple[str, ...], list[str]]:
    """The distinct frames of a program by the fields they have; the mere joining of two texts is none."""
    found: dict[tuple[str, ...], list[str]] = {}
    for node in _outermost(tree):
        text, fields = _frame(node)
        worded = any(letter.isalpha() for letter in text.format(**dict.fromkeys(fields, "")))
        if {"document", "instruction"} <= set(fields) and worded and text not in found.setdefault(fields, []):
            found[fields].append(text)
    return found


def _outermost(node: ast.AST) -> Iterator[ast.expr]:
    """Text expressions that are not part of another."""
    for child in ast.iter_child_nodes(node):
        text = isinstance(child, ast.Constant) and isinstance(child.value, str)
        if text or isinstance(child, ast.JoinedStr) or (isinstance(child, ast.BinOp) and isinstance(child.op, ast.Add)):
            assert isinstance(child, ast.expr)
            yield child
        else:
            yield from _outermost(child)


def _frame(node: ast.expr) -> tuple[str, tuple[str, ...]]:
    """A text expression as a frame for `str.format`: `{}` are document, instruction and words, in this order."""
    text, fields = "", list[str]()
    unnamed = iter(("document", "instruction", "words"))
    for part in _parts(node):
        if isinstance(part, str):
            for i, piece in enumerate(part.split("{}")):
                if i:
                    fields.append(next(unnamed, "unknown"))
                    text += "{" + fields[-1] + "}"
                text += piece.replace("{", "{{").replace("}", "}}")
        else:
            fields.append(_field(part))
            text += "{" + fields[-1] + "}"
    return text, tuple(fields)


def _field(node: ast.expr) -> str:
    known = {"document": "document", "doc": "document", "inst": "instruction", "instruction": "instruction"}
    if isinstance(node, ast.Name):
        return known.get(node.id, "unknown")
    return "words" if isinstance(node, ast.Call) else "unknown"


def _parts(node: ast.expr) -> Iterator[str | ast.expr]:
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.JoinedStr():
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    yield part.value
                else:
                    yield from _parts(part)
        case ast.BinOp(op=ast.Add()):
            yield from _parts(node.left)
            yield from _parts(node.right)
        case _:
            yield node


def _second(tree: ast.Module, where: str) -> Second:
    """The only replacement of one constant text by another, and the constant text that is added to it."""
    tails = {id(n.left): n.right for n in ast.walk(tree) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Add)}
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="replace", value=ast.Name()),
                args=[ast.Constant(value=str() as old), ast.Constant(value=str() as new)],
            ):
                tail = tails.get(id(node))
                added = tail.value if isinstance(tail, ast.Constant) and isinstance(tail.value, str) else ""
                # A sentence about the world, not the tidying of a name or a line feed.
                if " " in old.strip() and " " in new.strip():
                    found.append(Second(old=old, new=new, tail=added))
    if len({(s.old, s.new, s.tail) for s in found}) != 1:
        raise Unreadable(
            "the authors' prompts cannot be read", where=where, why=f"{len(found)} second questions of sci_fi, not one"
        )
    return found[0]
