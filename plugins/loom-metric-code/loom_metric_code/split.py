"""Which test programs can run apart from the answer, and which names they need from it. Standard library only.

Decided from the benchmark's own texts (prompt, tests, entry), never from the answer: an answer must not choose how it
is judged. Runs nothing.
"""

from __future__ import annotations

import ast
import builtins
import symtable
import sys

INTO_THE_ANSWER = {
    "globals", "locals", "vars", "eval", "exec", "inspect", "redirect_stdout", "redirect_stderr", "stdout", "stderr",
    "stdin", "input", "capsys", "capfd", "monkeypatch", "mock", "patch", "__file__", "modules", "getsource",
}  # fmt: skip
"""What only works in the answer's own process: its names, its source, what it prints, what it reads."""
USUAL_NAMES = {"np": "numpy", "pd": "pandas"}


class NotSplit(Exception):
    """Tests that cannot run apart from the answer, and why."""


class Plan:
    """What the judge takes from where.

    asked: names that the answer gives, if it has them; modules: module of each name that the judge imports itself where
    the answer imported one; shadowing: built-in names that the answer gives if it has none of `asked`; objects: whether
    the tests work with objects of a class of the answer's; prompt: the text that the judge runs first.
    """

    __slots__ = ("asked", "modules", "objects", "prompt", "shadowing")

    def __init__(
        self, asked: set[str], modules: dict[str, str], shadowing: set[str], *, objects: bool, prompt: str
    ) -> None:
        self.asked, self.modules, self.shadowing = frozenset(asked), modules, frozenset(shadowing)
        self.objects, self.prompt = objects, prompt


def plan(prompt: str, tests: str, entry: str) -> Plan:
    """How tests run apart from an answer. Raises NotSplit with the reason."""
    try:
        tree, table = ast.parse(tests), symtable.symtable(tests, "<tests>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotSplit(f"they are not a Python program of their own ({type(error).__name__})") from error
    shown, stubs, classes = _prompt(prompt)
    used, made = _names(table)
    used |= {entry} if entry else set()
    free = used - made - set(dir(builtins)) - (shown - stubs) | ({entry} if entry else set())
    _refuse(tree, free)
    modules = {name: USUAL_NAMES.get(name, name) for name in free if name in sys.stdlib_module_names | set(USUAL_NAMES)}
    asked = free - set(modules) | ({entry} if entry else set())
    functions = {line.split("(")[0].split()[-1] for line in prompt.splitlines() if line.startswith("def ")}
    objects = any(name in classes or name.lstrip("_")[:1].isupper() for name in asked - functions)
    shadowing = _tested(tree) & set(dir(builtins)) - made
    return Plan(asked, modules, shadowing, objects=objects, prompt=prompt if shown else "")


def _prompt(prompt: str) -> tuple[set[str], set[str], set[str]]:
    """Names that the prompt makes, those of them that are for the answer to write, and those that are classes.

    A prompt that is not a program of its own (a head without a body) makes none; its classes are still seen.
    """
    heads = {line.split("(")[0].split(":")[0].split()[1] for line in prompt.splitlines() if line.startswith("class ")}
    try:
        tree = ast.parse(prompt)
        _, made = _names(symtable.symtable(prompt, "<prompt>", "exec"))
    except (SyntaxError, ValueError, RecursionError, MemoryError, IndexError):
        return set(), set(), heads
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    written = [node for node in tree.body if isinstance(node, kinds)]
    stubs = {node.name for node in written if _is_stub(node)} | {node.name for node in written[-1:]}
    return made, stubs, heads


def _is_stub(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Whether a body holds nothing but a docstring, `pass`, `...` or `raise`; of a class: or such functions."""
    for part in node.body:
        if isinstance(part, (ast.Pass, ast.Raise)) or (
            isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
        ):
            continue
        if (
            isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))
            and isinstance(node, ast.ClassDef)
            and _is_stub(part)
        ):
            continue
        return False
    return True


def _names(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Global names that a program uses, and those that it makes itself."""
    used: set[str] = set()
    made: set[str] = set()
    waiting = [table]
    while waiting:
        here = waiting.pop()
        waiting += here.get_children()
        for symbol in here.get_symbols():
            if here is table or symbol.is_global():
                if symbol.is_referenced():
                    used.add(symbol.get_name())
                if symbol.is_assigned() or symbol.is_imported() or (here is table and symbol.is_namespace()):
                    made.add(symbol.get_name())
    return used, made


def _refuse(tree: ast.Module, asked: set[str]) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in INTO_THE_ANSWER:
            raise NotSplit(f"they use {node.id}")
        if isinstance(node, ast.Attribute) and node.attr in INTO_THE_ANSWER:
            raise NotSplit(f"they use {node.attr}")
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            parts = [
                *(getattr(node, "module", None) or "").split("."),
                *(n for a in node.names for n in a.name.split(".")),
            ]
            if found := INTO_THE_ANSWER & set(parts):
                raise NotSplit(f"they import {min(found)}")
        types: list[ast.expr] = []
        if isinstance(node, ast.ClassDef):
            types = node.bases
            if not any("TestCase" in ast.unparse(base) for base in types):
                raise NotSplit("they make objects of a class of their own")
        elif isinstance(node, ast.ExceptHandler) and node.type is not None:
            types = [node.type]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            types = node.args[1:]
        for name in (part for kind in types for part in ast.walk(kind)):
            if isinstance(name, ast.Name) and name.id in asked:
                raise NotSplit("they need a class of the answer's as a type")


def _tested(tree: ast.Module) -> set[str]:
    """Names that an assert calls first: `f` in `assert f(x) == y`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            test = node.test.left if isinstance(node.test, ast.Compare) else node.test
            if isinstance(test, ast.Call) and isinstance(test.func, ast.Name):
                found.add(test.func.id)
    return found
