"""The judge's process: runs a benchmark's tests and asks the answer's process for results, as data.

The tests see functions of the answer as `Thing`s. A call sends plain arguments and brings back plain data, which is
compared here, by Python's own types: an object that says it equals everything is equal to nothing. Runs confined too,
since tests are a data set's code. Standard library only.
"""

from __future__ import annotations

import builtins
import importlib
import os
import sys
import types

from loom_metric_code.answer import MUTABLE, run_text
from loom_metric_code.carry import Closed, NotPlain, read, receive, send, written
from loom_metric_code.split import NotSplit, Plan, plan

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing costs more than the rest of the child
    from typing import Any

NAMED = frozenset(
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
)
"""The names that a verdict may hold."""
OTHER = "another exception"


class Stop(BaseException):
    """The tests cannot go on, whatever they catch: the answer's process is gone, or says what is not data."""


class Link:
    """Asks the answer's process. stopped: why there is nothing more to ask, once there is."""

    def __init__(self, requests: int, replies: int, child: int) -> None:
        self._requests, self._replies, self._child = requests, replies, child
        self._functions: list[Any] = []
        self.objects = False
        self.stopped: dict[str, str] | None = None

    def ask(self, *message: Any) -> list[Any]:
        """The reply to a message. Raises Stop."""
        if self.stopped is None:
            try:
                send(self._requests, message)
                while (reply := receive(self._replies)) and isinstance(reply, list) and reply[0] == "callback":
                    self._call_back(*reply[1:])
                if isinstance(reply, list) and reply and reply[0] in ("done", "value", "raised", "absent", "module"):
                    return reply
                self.stop(failed="answered with something other than data")
            except Closed:
                self.stop(failed=_end_of(self._child))
            except (NotPlain, MemoryError, LookupError, TypeError, AttributeError):
                self.stop(failed="answered with something other than data")
        raise Stop

    def stop(self, **why: str) -> None:
        """Nothing more is asked, and the tests have not passed."""
        self.stopped = self.stopped or why

    def value(self, message: Any) -> Any:
        """Plain data or a Thing from what came. Raises Stop for neither."""
        try:
            return read(message, lambda number: Thing(self, number))
        except NotPlain:
            self.stop(failed="answered with something other than data")
            raise Stop from None

    def do(self, what: str, thing: int, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Ask for something of a thing: its value. Arguments that the answer changed are changed here too.

        Raises what the answer raised.
        """
        try:
            sent = [written(argument, self._handle) for argument in arguments]
            keywords = {key: written(argument, self._handle) for key, argument in named.items()}
        except NotPlain as error:
            self.stop(unsplit=f"they hand the answer what cannot be carried ({error})")
            raise Stop from None
        reply = self.ask("do", what, thing, sent, keywords)
        if reply[0] == "raised":
            raise self.exception(reply)
        try:
            for place, now in dict(reply[2]).items():
                _become(arguments[int(place)], self.value(now))
            return self.value(reply[1])
        except (LookupError, TypeError, ValueError, AttributeError):
            self.stop(failed="answered with something other than data")
            raise Stop from None

    def exception(self, reply: list[Any]) -> BaseException:
        """The exception that a reply tells of, as its nearest built-in kind."""
        try:
            names, arguments = [str(name) for name in reply[1]], [self.value(argument) for argument in reply[2]]
        except (LookupError, TypeError):
            names, arguments = [], []
        base = next((getattr(builtins, name) for name in names if name in NAMED), Exception)
        kind = base if names[:1] == [base.__name__] else types.new_class("Another", (base,))
        try:
            return kind(*arguments)  # type: ignore[no-any-return]
        except (TypeError, ValueError):
            return types.new_class("Another", (Exception,))()  # type: ignore[no-any-return]

    def _call_back(self, number: int, arguments: list[Any], named: dict[str, Any]) -> None:
        """Call a function that the tests handed over, and tell the answer what came of it."""
        function = self._functions[-1 - number] if number < 0 else None
        given = [self.value(argument) for argument in arguments]
        keywords = {key: self.value(argument) for key, argument in named.items()}
        try:
            message = ["returned", written(function(*given, **keywords), self._handle)]  # type: ignore[misc]
        except Stop:
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised in the answer, which may catch it
            message = ["failed", type(error).__name__]
        send(self._requests, message)

    def _handle(self, value: Any) -> Any:
        if isinstance(value, Thing):
            return ["handle", value._number]
        if callable(value):
            self._functions.append(value)
            return ["handle", -len(self._functions)]
        raise NotPlain(f"a {type(value).__name__}")


def _become(argument: Any, now: Any) -> None:
    """Change an argument as the answer changed its copy."""
    if type(argument) is not type(now) or type(now) not in MUTABLE:
        raise TypeError
    if isinstance(argument, (list, bytearray)):
        argument[:] = now
    else:
        argument.clear()
        argument.update(now)


def _end_of(child: int) -> str:
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        import signal

        number = os.WTERMSIG(status)
        return f"killed by {signal.Signals(number).name if number in signal.valid_signals() else number}"
    return f"ended with exit code {os.WEXITSTATUS(status)} before its tests were over"


def _between(what: str) -> Any:
    """An operation of two things of the answer; with data it would tell the answer what is expected."""

    def operation(self: Thing, other: Any) -> Any:
        return self._link.do(what, self._number, (other,), {}) if isinstance(other, Thing) else NotImplemented

    return operation


class Thing:
    """A function, class or object of the answer's, which stays in its process."""

    __slots__ = ("_link", "_number")
    __lt__, __le__, __gt__, __ge__ = _between("lt"), _between("le"), _between("gt"), _between("ge")
    __add__, __sub__, __mul__, __truediv__ = _between("add"), _between("sub"), _between("mul"), _between("truediv")

    def __init__(self, link: Link, number: int) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def _do(self, what: str, *arguments: Any) -> Any:
        return self._link.do(what, self._number, arguments, {})

    def _text(self, what: str) -> str:
        text = self._do(what)
        return text if isinstance(text, str) else ""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._link.do("call", self._number, arguments, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)
        value = self._do("attribute", name)
        if isinstance(value, Thing) and not self._link.objects:
            # A method is told what its call compares with; tests of functions call none of an object's.
            raise AttributeError(name)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self._do("set_attribute", name, value)

    def __getitem__(self, place: Any) -> Any:
        return self._do("item", place)

    def __setitem__(self, place: Any, value: Any) -> None:
        self._do("set_item", place, value)

    def __iter__(self) -> Any:
        return self._do("iterate")

    def __next__(self) -> Any:
        return self._do("next")

    def __len__(self) -> int:
        return int(self._do("length"))

    def __bool__(self) -> bool:
        return self._do("truth") is True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Thing):
            return False
        return other._number == self._number or self._do("eq", other) is True

    def __hash__(self) -> int:
        return hash(self._number)

    def __str__(self) -> str:
        return self._text("text")

    def __repr__(self) -> str:
        return self._text("shown")

    def __enter__(self) -> Any:
        return self._do("enter")

    def __exit__(self, *_: object) -> None:
        self._do("leave")


def judge(order: dict[str, str], link: Link) -> dict[str, Any]:
    """Run an answer and its tests: {"passed": true}, {"raised": NAME}, {"failed": why} or {"unsplit": why}.

    Except for the last, "objects" says whether the tests worked with objects of the answer's own classes.

    order: prompt, answer, tests, entry, as texts.
    """
    try:
        split = plan(order["prompt"], order["tests"], order["entry"])
    except NotSplit as error:
        return {"unsplit": str(error)}
    link.objects = split.objects
    try:
        reply = link.ask("run", order["prompt"] + order["answer"])
        if reply[0] == "raised":
            raise link.exception(reply)
        _test(order, split, link)
        said: dict[str, Any] = {"passed": True}
    except Stop:
        said = {}
    except BaseException as error:  # noqa: BLE001 - whatever tests or answer raise is a failure of the answer
        said = {"raised": verdict_name(error)}
    return {**(link.stopped or said), "objects": split.objects}


def verdict_name(error: BaseException) -> str:
    """The name of a built-in exception; of any other class nothing is told."""
    name = type(error).__name__
    return name if name in NAMED and type(error) is getattr(builtins, name) else OTHER


def _test(order: dict[str, str], split: Plan, link: Link) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    names = vars(module)
    if split.prompt:
        run_text(split.prompt, "<prompt>", names)
    given = {name: _name(link, name) for name in sorted(split.asked)}
    if all(value is None for value in given.values()):
        given = {name: _name(link, name) for name in sorted(split.shadowing)}
    for name in split.asked:
        names.pop(name, None)
    names.update({name: value[0] for name, value in given.items() if value is not None})
    for name, source in split.modules.items():
        if name not in split.asked and link.ask("name", name)[0] == "module":
            names[name] = importlib.import_module(source)
    call = f"check({order['entry']})" if order["entry"] else ""
    run_text(f"{order['tests']}\n{call}\n", "<tests>", names)


def _name(link: Link, name: str) -> tuple[Any] | None:
    reply = link.ask("name", name)
    if reply[0] != "value":
        return None
    try:
        return (link.value(reply[1]),)
    except LookupError:
        link.stop(failed="answered with something other than data")
        raise Stop from None
