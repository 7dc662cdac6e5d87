"""Values and messages between the answer's process and the judge's: plain data as JSON, never objects.

A message is its length (8 bytes) and one JSON value. None, true, false, texts, floats and small integers stand for
themselves, everything else is a list whose first item says what it is. What is not plain data travels as a handle,
`["handle", number]`. Reading makes built-in types, Decimal, Fraction, deque, dates and handles; there is nothing else
that a message could make. Standard library only.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing costs more than the rest of the child
    from typing import Any


MOST_BYTES = 64 << 20
DEEPEST = 150
SMALL = 1 << 53
MADE_OF: dict[str, Callable[[Any], list[Any]]] = {
    "decimal.Decimal": lambda value: [str(value)],
    "fractions.Fraction": lambda value: [value.numerator, value.denominator],
    "collections.deque": lambda value: [list(value), value.maxlen],
    "datetime.date": lambda value: [value.year, value.month, value.day],
    "datetime.time": lambda value: [value.hour, value.minute, value.second, value.microsecond],
    "datetime.datetime": lambda value: [*value.timetuple()[:6], value.microsecond],
    "datetime.timedelta": lambda value: [value.days, value.seconds, value.microseconds],
}
"""Types that are plain data too, and the arguments that make one; times without a zone."""
KINDS: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class NotPlain(Exception):
    """A value that cannot be carried, or a message that is none."""


class Closed(Exception):
    """The other side is gone."""


def receive(source: int) -> Any:
    """The next message. Raises Closed, and NotPlain for what is not a message."""
    size = int.from_bytes(_exactly(source, 8), "big")
    if size > MOST_BYTES:
        raise NotPlain(f"a message of {size} bytes")
    try:
        return json.loads(_exactly(source, size))
    except (ValueError, RecursionError) as error:
        raise NotPlain("a message that is not JSON") from error


def _exactly(source: int, size: int) -> bytes:
    read = bytearray()
    while len(read) < size:
        piece = os.read(source, min(size - len(read), 1 << 20))
        if not piece:
            raise Closed
        read += piece
    return bytes(read)


def send(target: int, message: Any) -> None:
    """Write a message. Raises Closed."""
    data = json.dumps(message).encode()
    rest = memoryview(len(data).to_bytes(8, "big") + data)
    try:
        while rest:
            rest = rest[os.write(target, rest) :]
    except BrokenPipeError:
        raise Closed from None


def written(value: Any, handle: Callable[[Any], Any], depth: int = 0) -> Any:
    """A value as JSON. handle: writes what is not plain data, or raises NotPlain."""
    if depth > DEEPEST:
        raise NotPlain("a value that is nested too deeply")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        number = int(value)
        return number if -SMALL < number < SMALL else ["int", hex(number)]
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dict):
        return ["dict", *([written(k, handle, depth + 1), written(v, handle, depth + 1)] for k, v in value.items())]
    for name, kind in KINDS.items():
        if isinstance(value, kind):  # type: ignore[arg-type]
            return [name, *(written(item, handle, depth + 1) for item in value)]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, (bytes, bytearray)):
        return [type(value).__name__ if type(value) in (bytes, bytearray) else "bytes", value.hex()]
    if isinstance(value, range):
        return ["range", *(written(number, handle) for number in (value.start, value.stop, value.step))]
    return _written_object(value, handle)


def _written_object(value: Any, handle: Callable[[Any], Any]) -> Any:
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if name in MADE_OF and getattr(value, "tzinfo", None) is None:
        return ["made", name, *(written(item, handle) for item in MADE_OF[name](value))]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and type(value.item()) is not type(value):
        return written(value.item(), handle)
    return handle(value)


def read(message: Any, handle: Callable[[int], Any]) -> Any:
    """The value of JSON that `written` made. handle: what stands for a number of the other side. Raises NotPlain."""
    if not isinstance(message, list):
        if isinstance(message, dict):
            raise NotPlain("no value")
        return message
    try:
        return _read(message[0], message[1:], handle)
    except (LookupError, TypeError, ValueError, OverflowError, ArithmeticError, RecursionError) as error:
        raise NotPlain("no value") from error


def _read(kind: str, rest: list[Any], handle: Callable[[int], Any]) -> Any:
    if kind in KINDS:
        return KINDS[kind](read(item, handle) for item in rest)
    if kind == "dict":
        return {read(key, handle): read(value, handle) for key, value in rest}
    if kind == "int":
        return int(rest[0], 16)
    if kind == "complex":
        return complex(*rest)
    if kind == "bytes":
        return bytes.fromhex(rest[0])
    if kind == "bytearray":
        return bytearray.fromhex(rest[0])
    if kind == "range":
        return range(*(read(item, handle) for item in rest))
    if kind == "made" and rest[0] in MADE_OF:
        module, _, name = rest[0].partition(".")
        return getattr(importlib.import_module(module), name)(*(read(item, handle) for item in rest[1:]))
    if kind == "handle":
        return handle(int(rest[0]))
    raise NotPlain(f"no value of kind {kind!r:.40}")
