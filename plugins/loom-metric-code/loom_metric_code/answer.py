"""The answer's process: runs the answer and does with its names what the judge asks, on plain data.

It never sees a test: only the arguments of calls. Whatever the answer does to this process, all that leaves it are
messages of `carry`, which the judge reads as data. Runs confined; nothing in it is trusted. Standard library only.
"""

from __future__ import annotations

import builtins
import operator
import sys
import types
from collections.abc import Callable
from importlib.machinery import SourceFileLoader

from loom_metric_code.carry import NotPlain, read as read_value, receive, send, written

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing costs more than the rest of the child
    from typing import Any

ASKED: dict[str, Callable[..., Any]] = {
    "call": lambda thing, *arguments, **named: thing(*arguments, **named),
    "attribute": getattr,
    "set_attribute": setattr,
    "item": operator.getitem,
    "set_item": operator.setitem,
    "length": len,
    "text": str,
    "shown": repr,
    "iterate": iter,
    "next": next,
    "truth": bool,
    "enter": lambda thing: type(thing).__enter__(thing),
    "leave": lambda thing: bool(type(thing).__exit__(thing, None, None, None)),
    **{name: getattr(operator, name) for name in ("eq", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv")},
}
"""What may be asked of a thing of the answer."""
MUTABLE = (list, dict, set, bytearray)


def run_text(text: str, name: str, namespace: dict[str, Any]) -> None:
    """Run a program's text in a namespace. Raises whatever it raises, SyntaxError too."""
    loader = SourceFileLoader(namespace["__name__"], name)
    types.FunctionType(loader.source_to_code(text.encode("utf-8", "replace"), name), namespace)()


class Answer:
    """The names of an answer, and the things that it gave out, by number."""

    def __init__(self, requests: int, replies: int) -> None:
        self.module = types.ModuleType("__main__")
        self.things: list[Any] = []
        self._requests, self._replies = requests, replies

    def keep(self, value: Any) -> Any:
        """A handle for what is not plain data."""
        self.things.append(value)
        return ["handle", len(self.things) - 1]

    def name(self, name: str) -> Any:
        """What a name of the answer is: ["absent"], ["module"] or ["value", value]; a function is a handle."""
        names = vars(self.module)
        if name not in names:
            return ["absent"]
        if isinstance(names[name], types.ModuleType):
            return ["module"]
        return ["value", written(names[name], self.keep)]

    def do(self, what: str, thing: int, arguments: list[Any], named: dict[str, Any]) -> list[Any]:
        """["value", value, arguments that were changed in place by their position] of something asked."""
        given = [read_value(argument, self._thing) for argument in arguments]
        keywords = {key: read_value(argument, self._thing) for key, argument in named.items()}
        value = ASKED[what](self.things[thing], *given, **keywords)
        answered = written(value, self.keep)
        changed = {}
        for place, argument in enumerate(given):
            if type(argument) in MUTABLE and (now := written(argument, self.keep)) != arguments[place]:
                changed[place] = now
        return ["value", answered, changed]

    def _thing(self, number: int) -> Any:
        """A thing that was given out; below 0, a function of the tests: -1 is their first."""
        if number >= 0:
            return self.things[number]

        def of_the_tests(*arguments: Any, **named: Any) -> Any:
            given = [written(argument, self.keep) for argument in arguments]
            send(self._replies, ["callback", number, given, {key: written(v, self.keep) for key, v in named.items()}])
            return self.serve()

        return of_the_tests

    def serve(self) -> Any:
        """Answer requests until the judge is gone, or until it returns from a function of the tests: its value then."""
        while True:
            kind, *rest = receive(self._requests)
            if kind == "returned":
                return read_value(rest[0], self._thing)
            if kind == "failed":
                raise getattr(builtins, rest[0], RuntimeError)
            try:
                if kind == "run":
                    run_text(rest[0], "<answer>", vars(self.module))
                    reply = ["done"]
                elif kind == "name":
                    reply = self.name(rest[0])
                else:
                    reply = self.do(*rest)
            except BaseException as error:  # noqa: BLE001 - whatever the answer raises is its result
                reply = raised(error)
            try:
                send(self._replies, reply)
            except (TypeError, ValueError, RecursionError, MemoryError) as error:
                send(self._replies, raised(error))


def raised(error: BaseException) -> list[Any]:
    """["raised", names of its classes, its arguments where they are plain]."""
    try:
        arguments = [written(argument, _refuse) for argument in error.args]
    except BaseException:  # noqa: BLE001 - the answer's own types may do anything
        arguments = []
    return ["raised", [kind.__name__ for kind in type(error).__mro__], arguments]


def _refuse(value: Any) -> Any:
    raise NotPlain(type(value).__name__)


def serve(requests: int, replies: int) -> None:
    """Answer requests until the judge is gone: first ["run", text], then ["name", name] and ["do", what, thing, …]."""
    answer = Answer(requests, replies)
    sys.modules["__main__"] = answer.module
    answer.serve()
