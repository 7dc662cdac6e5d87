"""What a run is asked to do: TOML and command line into one `RunConfig` that remembers where each value came from.

Values stay as the user wrote them; names are resolved against the installed plugins in `selection`. Knows no plugin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from loom_core.contract.errors import UsageError, nearest
from loom_core.contract.keys import plain
from loom_core.contract.options import SECRET, number, show
from loom_core.contract.tomlfile import read_toml
from loom_core.contract.types import PROTOCOLS, Json, Protocol
from loom_core.prompting.ownprompt import read_templates
from loom_core.prompting.thinking import marks

OVERLENGTH = ("error", "skip", "truncate")
TABLES = ("model_options", "server_options", "judge_options", "metric_options")
HOW = frozenset(
    (
        "server_options",
        "judge",
        "judge_options",
        "metric_options",
        "budget",
        "until",
        "workers",
        "devices",
        "executor",
        "python",
        "out",
        "data_dir",
        "offline",
        "origins",
    )
)
"""Fields that say how to run or score, not what is asked: they may change when a run is continued. (Server options that
do change what is asked are told apart by the server's own options class, see `options.identity`.)"""


MOST = 2**53
"""The largest whole number of a setting: every JSON reader holds it exactly."""
LONGEST = 2**27
"""Tokens of a prompt that may be asked for."""
MOST_REPEATS = 10_000
"""Answers to one question, and worker processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A run as it was asked for. Every field not in `HOW` is part of its identity.

    subset: samples of each task, drawn fairly over its levels by `subset_seed`; limit: then at most so many. templates:
    the text of a user's own prompt by "bench:task". thinking: the marks around a model's thinking, thinking_budget:
    tokens allowed for it (`thinking`).
    """

    benchmarks: tuple[str, ...] = ()
    suite: str | None = None
    model: str | None = None
    model_options: Mapping[str, str] = field(default_factory=dict)
    server: str | None = None
    server_options: Mapping[str, str] = field(default_factory=dict)
    accel: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    limit: int | None = None
    subset: int | None = None
    subset_seed: int = 0
    templates: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    repeats: int = 1
    overlength: Literal["error", "skip", "truncate"] = "error"
    protocol: Protocol = "query-aware"
    thinking: str | None = None
    thinking_budget: int = 0
    judge: str | None = None
    judge_options: Mapping[str, str] = field(default_factory=dict)
    metric_options: Mapping[str, str] = field(default_factory=dict)
    budget: float | None = None
    until: float | None = None
    workers: int = 1
    devices: tuple[str, ...] = ()
    executor: str = "local"
    python: str | None = None
    out: str | None = None
    data_dir: str | None = None
    offline: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, Json]:
        """What the run asks, without how it is carried out."""
        return {k: v for k, v in plain(self).items() if k not in HOW}

    def to_json(self) -> dict[str, Json]:
        """All fields, for the manifest; `from_json` reads them back."""
        record: dict[str, Json] = plain(self)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Json]) -> RunConfig:
        """The config that `to_json` wrote. Raises UsageError for a setting that this version does not know: leaving it
        out would ask something else."""
        if unknown := sorted(set(record) - {f.name for f in fields(cls)}):
            raise UsageError(
                f"this run has a setting that this version of loom does not know: {unknown[0]!r}",
                where="manifest.json, config",
                why="the run was made by another version of loom",
                hint="continue it with the version that manifest.json names (versions), or start another run",
            )
        return _typed({f.name: record[f.name] for f in fields(cls) if f.name in record}, where="manifest.json")

    def merged(self, values: Mapping[str, Any], origin: str) -> RunConfig:
        """This config with some values replaced, each remembered as coming from `origin`."""
        if not values:
            return self
        _typed(values, where=origin)
        origins = {**self.origins, **dict.fromkeys(values, origin)}
        return _typed({**self.to_json(), **values, "origins": origins}, where=origin)


def from_toml(path: Path) -> RunConfig:
    """A study file: the fields of `RunConfig`, options as tables. Raises UsageError naming file and key."""
    try:
        values = read_toml(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError("the study file cannot be read", where=str(path), why=why, hint="check the path") from error
    except ValueError as error:
        raise UsageError("the study file is not valid TOML", where=str(path), why=str(error)) from error
    if not values:
        hint = 'write benchmarks = ["NAME"] and what else differs from the defaults'
        raise UsageError("the study file is empty", where=str(path), hint=hint)
    return RunConfig().merged(with_templates(values, path), str(path))


def with_templates(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The settings of a TOML file with the templates' texts for their files, which lie relative to it."""
    if isinstance(given := values.get("templates"), Mapping):
        values = {**values, "templates": read_templates(given, path.parent, where=str(path))}
    return values


def _typed(values: Mapping[str, Any], *, where: str) -> RunConfig:
    known = {f.name for f in fields(RunConfig)}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"unknown setting {name!r}", where=where, hint=nearest(name, known - {"origins"}))
        try:
            if _holds_nul(value):
                raise ValueError("it holds the character NUL")
            converted[name] = _value(name, value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"bad value for {name!r}", where=where, why=str(error)) from None
    return replace(RunConfig(), **converted)


def _holds_nul(value: Any) -> bool:
    """True where a text somewhere in a value holds NUL, which no path, name or process can."""
    if isinstance(value, Mapping):
        return any(map(_holds_nul, (*value.keys(), *value.values())))
    return "\0" in value if isinstance(value, str) else isinstance(value, (list, tuple)) and any(map(_holds_nul, value))


def _value(name: str, value: Any) -> Any:
    if name in ("benchmarks", "accel"):
        return tuple(_text(item) for item in ([value] if isinstance(value, str) else _list(value)))
    if name == "devices":
        return tuple(_group(item) for item in (value.split(",") if isinstance(value, str) else _list(value)))
    if name == "lengths":
        items = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else _list(value)
        return tuple(_whole(item, least=1, most=LONGEST) for item in items)
    if name in (*TABLES, "origins"):
        if not isinstance(value, Mapping):
            raise TypeError(f"expected a table of names and values, got {value!r}")
        return {str(k): _option(name, str(k), v) for k, v in value.items()}
    if name == "templates":
        if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
            raise TypeError(f"expected a table of tasks and template texts, got {value!r}")
        return {str(k): v for k, v in value.items()}
    if name in ("limit", "subset", "repeats", "workers"):
        most = MOST if name in ("limit", "subset") else MOST_REPEATS
        return None if value is None and name in ("limit", "subset") else _whole(value, least=1, most=most)
    if name == "thinking":
        return marks(value)
    if name in ("seed", "subset_seed", "thinking_budget"):
        return _whole(value, least=0)
    if name == "offline":
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false, got {value!r}")
        return value
    if name in ("budget", "until"):
        return (_seconds if name == "budget" else _half_width)(value)
    if name == "executor":
        return _text(value)
    choices: dict[str, tuple[str, ...]] = {"overlength": OVERLENGTH, "protocol": PROTOCOLS}
    if name in choices and value not in choices[name]:
        raise ValueError(f"expected one of {', '.join(choices[name])}, got {value!r}")
    return None if value is None else _text(value)


def _option(table: str, name: str, value: Any) -> str:
    if table != "origins" and SECRET.search(name):
        raise ValueError(f"option {name!r} looks like a secret; give secrets in the environment")
    return show(tuple(value) if isinstance(value, list) else value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"expected a list, got {value!r}")
    return list(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value


def _whole(value: Any, *, least: int, most: int = MOST) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"expected a whole number, got {value!r}")
    result = number(value) if isinstance(value, str) else value
    if not least <= result <= most:
        raise ValueError(f"{result} is below {least}" if result < least else f"{result} is above {most}")
    return result


def _group(value: Any) -> str:
    """A group of devices, `0` or `0+1`."""
    text = "" if isinstance(value, (bool, float)) else str(value).strip()
    if not re.fullmatch(r"[\w.-]+(\+[\w.-]+)*", text):
        raise ValueError(f"expected a device or a group of devices, got {value!r} (write 0,1 or 0+1,2+3)")
    return text


def _seconds(value: Any) -> float | None:
    """Seconds of `90s`, `30m`, `1h30m`; None of none."""
    if value is None or value == "none":
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MOST:
        return float(value)
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", _text(value).strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if not hours + minutes + seconds:
        raise ValueError(f"expected a time, got {value!r} (write 30m, 1h30m or 90s, or none)")
    return float(3600 * hours + 60 * minutes + seconds)


def _half_width(value: Any) -> float | None:
    """The half-width of `ci=2` (points of a hundred of a metric's range) as a share; None of none."""
    if value is None or value == "none":
        return None
    if isinstance(value, float) and 0 < value < 0.5:
        return value
    match = re.fullmatch(r"ci=(\d+(?:\.\d+)?)", _text(value).strip())
    if not match or not 0 < float(match[1]) < 50:
        raise ValueError(
            f"expected a width, got {value!r} (write ci=2: every interval within ±2 points of 100, or none)"
        )
    return float(match[1]) / 100


def difference(before: RunConfig, after: RunConfig) -> list[str]:
    """The settings in which two configs differ, as `name: old → new` lines."""
    old, new = before.identity, after.identity
    return [f"{name}: {_short(old[name])} → {_short(new[name])}" for name in old if old[name] != new[name]]


def _short(value: Json) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text or "(none)"
