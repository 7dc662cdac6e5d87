"""Whether a value is what a record's annotations say, and if not, where it differs. Knows types, no record by name.

What plugins give and what is read from files passes here before anything relies on it. Numbers are finite, a bool is no
number, and a field of any type must hold JSON.
"""

from __future__ import annotations

import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeAlias, get_args, get_origin

from loom_core.contract.keys import plain

Check: TypeAlias = Callable[[Any], str | None]
"""Of a value: None where it fits, else "field: what was expected, what was found"."""

LONGEST = 60
INTEGERS = frozenset((int,))


def misfit(value: Any, kind: Any) -> str | None:
    """How `value` differs from the annotation or dataclass `kind`; None where it fits."""
    return _check(kind)(value)


def shown(value: object) -> str:
    """A value for a message; its repr may be anything, endless, or raise."""
    kind = type(value).__name__
    # By its type alone: what a plugin gave may raise whatever else is asked of it.
    if issubclass(type(value), (str, int, float, complex, list, tuple, dict, type(None))):
        try:
            text = repr(value)
        except Exception:  # noqa: BLE001 - of what it holds, or a subclass of a plugin
            return kind
        return f"{text[:LONGEST]}{'…' if len(text) > LONGEST else ''} ({kind})"
    return kind


@functools.cache
def _check(kind: Any) -> Check:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, types.FunctionType):
        return kind
    if kind is Any:
        return _json
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments)
    if origin is Literal:
        return _choice(arguments)
    if origin is tuple:
        return _items(arguments[0])
    if origin is frozenset:
        return _names
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(arguments[1])
    if is_dataclass(kind):
        return _record(kind)
    return _plain(kind)


def _expected(what: str, value: object) -> str:
    return f"expected {what}, got {shown(value)}"


def _json(value: Any) -> str | None:
    try:
        json.dumps(plain(value), allow_nan=False)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return f"it is not valid JSON: {str(error)[:LONGEST]}"
    return None


def _plain(kind: type) -> Check:
    names = {str: "text", bool: "true or false", int: "a whole number", float: "a finite number"}

    def check(value: Any) -> str | None:
        fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                fits = math.isfinite(value)
            except OverflowError:
                fits = False
        return None if fits else _expected(names.get(kind, f"a {kind.__name__}"), value)

    return check


def _choice(words: tuple[Any, ...]) -> Check:
    def check(value: Any) -> str | None:
        fits = any(type(value) is type(word) and value == word for word in words)
        return None if fits else _expected("one of " + ", ".join(map(str, words)), value)

    return check


def _one_of(kinds: tuple[Any, ...]) -> Check:
    checks = [_check(kind) for kind in kinds if kind is not type(None)]
    optional = len(checks) < len(kinds)

    def check(value: Any) -> str | None:
        if value is None and optional:
            return None
        found = [one(value) for one in checks]
        return None if None in found else found[0]

    return check


def _items(kind: Any) -> Check:
    one = _check(kind)

    def check(value: Any) -> str | None:
        if not isinstance(value, (tuple, list)):
            return _expected("a tuple", value)
        if kind is int and INTEGERS.issuperset(map(type, value)):
            return None  # token ids come in tens of thousands
        for number, item in enumerate(value):
            if why := one(item):
                return f"item {number}: {why}"
        return None

    return check


def _names(value: Any) -> str | None:
    fits = isinstance(value, (set, frozenset)) and all(isinstance(item, str) for item in value)
    return None if fits else _expected("a set of names", value)


def _mapping(kind: Any) -> Check:
    one = _check(kind)

    def check(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return _expected("a mapping", value)
        for key, item in value.items():
            if not isinstance(key, str):
                return _expected("names that are text", key)
            if why := one(item):
                return f"{key[:LONGEST]}: {why}"
        return None

    return check


def _record(kind: Any) -> Check:
    @functools.cache
    def checks() -> list[tuple[str, Check]]:  # when first asked: a record may hold records of its own kind
        hints = typing.get_type_hints(kind)
        return [(f.name, _check(hints[f.name])) for f in fields(kind)]

    def check(value: Any) -> str | None:
        if not isinstance(value, kind):
            return _expected(f"a {kind.__name__}", value)
        for name, one in checks():
            if why := one(getattr(value, name)):
                return f"{name}: {why}"
        return None

    return check
