"""Text to typed options: `k=v,k=v` into a frozen dataclass, with ranges, near names and `{a,b}` grids.

Every plugin describes its options as a frozen dataclass built with `option(...)`; this module is the only parser of
them. Understood field types: bool, int, float, str, Literal, Budget, X | None and tuple[X, ...]. It knows no plugin.
"""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from loom_core.contract.errors import UsageError, nearest
from loom_core.contract.keys import plain
from loom_core.contract.tomlfile import parse_toml
from loom_core.contract.types import Budget, Json

SECRET = re.compile(r"(?i)(^|_)(api_?keys?|token|secrets?|passwords?|credentials?)$")
"""Names of options that look like secrets; `max_tokens` is none."""


MOST_ROWS = 1000
"""Combinations of options in one grid, and arms in one run."""


@dataclass(frozen=True)
class NoOptions:
    """For plugins without options."""


def option(
    default: Any = MISSING,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    how: bool = False,
    reach: bool = False,
) -> Any:
    """A dataclass field with its help text and inclusive range; without a default it is required.

    how: the option says how the work is done, not what is asked (a batch size); it enters no key. reach: its value
    names something of this machine or beyond (an endpoint, a variable with a key, a file, code to run); it is never
    taken from a run folder or bundle of somebody else without being said again or accepted (see `trust`).
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high, "how": how, "reach": reach})


def number(text: str) -> int:
    """`4096`, `4k` (4 x 1024), `1m` (1024 x 1024)."""
    match = re.fullmatch(r"(\d+)([kKmM]?)", text.strip())
    if not match:
        raise ValueError(f"expected a whole number, got {text!r} (write 4096 or 4k)")
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()]


def budget(text: str) -> Budget:
    """`1024` or `1k` tokens, `0.25` or `25%` of the prompt, `4x` (a quarter), `64MiB` of keys and values."""
    text = text.strip()
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)x", text):
        return Budget(ratio=1 / float(match[1]) if float(match[1]) else 0)
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
        return Budget(ratio=float(match[1]) / 100)
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(i?)B", text):
        step = 1024 if match[3] else 1000
        return Budget(bytes_=int(float(match[1]) * step ** " KMG".index(match[2] or " ")))
    if re.fullmatch(r"0?\.\d+|1\.0+", text):
        return Budget(ratio=float(text))
    try:
        return Budget(tokens=number(text))
    except ValueError as error:
        raise ValueError(f"expected a budget, got {text!r} (write 1024, 4x, 0.25 or 64MiB): {error}") from None


def _real(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"expected a number, got {text!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {text!r}")
    return value


def _boolean(text: str) -> bool:
    known = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    if text.lower() not in known:
        raise ValueError(f"expected true or false, got {text!r}")
    return known[text.lower()]


def _convert(value: Any, kind: Any) -> Any:
    """`value` (text, or a value read from TOML or JSON) as `kind`; raises ValueError saying what was expected."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)))
    if origin is Literal:
        for choice in arguments:
            if value == choice or str(value) == str(choice):
                return choice
        raise ValueError(f"expected one of {', '.join(str(a) for a in arguments)}, got {value!r}")
    if origin is tuple:
        items = alternatives(value) if isinstance(value, str) else list(value)
        if isinstance(value, str) and not items:
            raise ValueError("{} holds no value")
        return tuple(_convert(item, arguments[0]) for item in items)
    if kind is Budget and isinstance(value, Mapping):
        return Budget(**value)
    if isinstance(value, str) and kind is not str:
        parsers: dict[Any, Any] = {bool: _boolean, int: number, float: _real, Budget: budget}
        return parsers[kind](value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value!r}")
    if kind is Budget and isinstance(value, (int, float)):
        return budget(str(value))
    if kind is str and isinstance(value, (int, float)):
        return str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{value!r} is not of type {getattr(kind, '__name__', kind)}")
    return value


def build(kind: type, values: Mapping[str, Any], *, owner: str) -> Any:
    """The options dataclass `kind` from text or typed values.

    owner: what the options belong to, for messages ("method snapkv"). Raises UsageError for an unknown or missing
    option, a wrong type, a value out of range, and whatever ValueError the dataclass itself raises.
    """
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            hint = f"{nearest(name, known)} ({_told(owner)})" if known else f"{owner} takes no options"
            raise UsageError(f"unknown option {name!r}", where=owner, hint=hint)
        try:
            converted[name] = _convert(value, hints[name])
            _check_range(name, converted[name], known[name].metadata)
        except ValueError as error:
            hint = f"{name}: {known[name].metadata.get('help', '')} ({_told(owner)})"
            raise UsageError(f"bad value for option {name!r}", where=owner, why=str(error), hint=hint) from None
    missing = [n for n, f in known.items() if n not in converted and f.default is MISSING]
    if missing:
        raise UsageError(
            f"option {missing[0]!r} is required",
            where=owner,
            hint=f"{missing[0]}=… ({known[missing[0]].metadata.get('help', '')})",
        )
    try:
        return kind(**converted)
    except ValueError as error:
        raise UsageError("these options do not go together", where=owner, why=str(error)) from None


def _told(owner: str) -> str:
    """Where all options of an owner ("benchmark passkey") are described."""
    return f"loom info {owner.split()[-1]}"


def _check_range(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    low, high = metadata.get("low"), metadata.get("high")
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            if low is not None and item < low:
                raise ValueError(f"{name}={item:.15g} is below the least value {low:.15g}")
            if high is not None and item > high:
                raise ValueError(f"{name}={item:.15g} is above the greatest value {high:.15g}")


def describe(kind: type) -> list[dict[str, Json]]:
    """name, type, default, range and help of each option: what `loom info` and the reference print."""
    hints = typing.get_type_hints(kind)
    rows = []
    for f in fields(kind):
        rows.append(
            {
                "name": f.name,
                "type": _type_text(hints[f.name]),
                "default": "required" if f.default is MISSING else show(f.default),
                "low": f.metadata.get("low"),
                "high": f.metadata.get("high"),
                "help": f.metadata.get("help", ""),
            }
        )
    return rows


def _type_text(kind: Any) -> str:
    """A field's type as users read it: `loom | essays`, `int | none`, `{int,…}`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join("none" if a is type(None) else _type_text(a) for a in arguments)
    if origin is tuple:
        return f"{{{_type_text(arguments[0])},…}}"
    names = {str: "text", bool: "true | false", int: "whole number", float: "number", Budget: "budget"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def show(value: Any) -> str:
    """An option's value as a user would type it; the inverse of the parser."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "{" + ",".join(show(item) for item in value) + "}"
    return str(value) if isinstance(value, Budget) else "none" if value is None else f"{value}"


def as_json(options: Any) -> Json:
    """The options as JSON; `build` reads it back."""
    return plain(options)


def identity(options: Any) -> Json:
    """The options that change what is asked, as JSON: what enters a key."""
    return {f.name: plain(getattr(options, f.name)) for f in fields(options) if not f.metadata.get("how")}


def alternatives(text: str) -> list[str]:
    """`{a,b}` as its items; any other text as itself."""
    if text.startswith("{") and text.endswith("}"):
        return [item.strip() for item in split(text[1:-1], ",")]
    return [text]


def split(text: str, separator: str) -> list[str]:
    """Split at separators outside braces; empty text gives no items."""
    items, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth < 0:
            raise UsageError("unbalanced braces", where=text, hint="write {a,b}")
        if char == separator and depth == 0:
            items.append(text[start:i])
            start = i + 1
    if depth:
        raise UsageError("unbalanced braces", where=text, hint="write {a,b}")
    return [*items, text[start:]] if text else []


PAIRED = ("thinking",)
"""Options whose value is two texts with a comma between: `thinking=<think>,</think>`."""


def assignments(text: str, *, where: str) -> dict[str, str]:
    """`k=v,k=v` as a mapping. Refuses an assignment without `=`, a name given twice, and secrets."""
    values: dict[str, str] = {}
    name = ""
    for item in split(text, ","):
        if name in PAIRED and "=" not in item and "," not in values[name]:
            values[name] += "," + item.strip()
            continue
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(
                f"{item!r} is not an option", where=where, hint="options are written name=value,name=value"
            )
        if name in values:
            raise UsageError(f"option {name!r} is given twice", where=where)
        if SECRET.search(name):
            raise UsageError(
                f"option {name!r} looks like a secret",
                where=name,
                why="options are written to the run folder",
                hint="give secrets in the environment",
            )
        values[name] = value.strip()
    return values


def grid(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Every combination of `{a,b}` alternatives, the first option varying slowest."""
    rows: list[dict[str, str]] = [{}]
    if (n := math.prod(len(alternatives(text)) for text in values.values())) > MOST_ROWS:
        why = f"its options have {n} combinations, and one run takes at most {MOST_ROWS}"
        raise UsageError("the grid is too large", where=", ".join(values), why=why, hint="give fewer values")
    for name, text in values.items():
        rows = [{**row, name: item} for row in rows for item in alternatives(text)]
    return rows


def table(text: str, *, name: str, owner: str, taken: Mapping[str, str]) -> dict[str, Any]:
    """The option `name`, a JSON object or a .json or .toml file, as names and values; empty for no text.

    taken: names that the table may not set, and what does. Raises UsageError where the text is not a table.
    """
    if not text.strip():
        return {}
    try:
        if text.lstrip().startswith("{"):
            values = json.loads(text)
        else:
            content = Path(text).expanduser().read_text("utf-8-sig")
            values = parse_toml(content) if text.endswith(".toml") else json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        hint = f'give a JSON object, {name}={{"top_k":1}}, or a .json or .toml file'
        raise UsageError(f"option {name} cannot be read", where=owner, why=str(error), hint=hint) from error
    if not isinstance(values, dict):
        raise UsageError(f"option {name} is not a JSON object", where=owner)
    for key in values:
        if key in taken:
            raise UsageError(f"{name} may not set {key!r}", where=owner, why=f"it is set by {taken[key]}")
    return values
