"""The process in which the authors' functions run: JSON lines in, JSON lines out. `python -m loom_parity.child`.

Code of others runs here and nowhere else. Standard output is taken away from it, so that what it prints cannot be
mistaken for an answer; it sees an empty standard input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

Functions = Mapping[str, Callable[[Any], Any]]


def main(parity: str, root: Path) -> None:
    """Answer questions until the input ends. parity: "package.module:Class" of the adapter."""
    questions, answers = _private(0, os.O_RDONLY), _private(1, os.O_WRONLY)
    functions = _opened(parity, root, answers)
    if functions is None:
        return
    for line in questions:
        question = json.loads(line)
        if question.get("loaded"):
            _say(answers, {"files": loaded(root)})
            continue
        _say(answers, _answer(functions, root, question["function"], question["payload"]))


def _opened(parity: str, root: Path, answers: TextIO) -> Functions | None:
    """The authors' functions, announced; None where they cannot be had, which is announced as well."""
    module, _, name = parity.partition(":")
    try:
        functions: Functions = getattr(importlib.import_module(module), name)().authors(root)
    except ModuleNotFoundError as error:
        _say(answers, {"cannot": "import", "module": error.name or "", "why": str(error)})
        return None
    except BaseException as error:  # noqa: BLE001 - whatever the authors' modules raise when they are imported
        traceback.print_exc()
        _say(answers, {"cannot": "open", "why": f"{type(error).__name__}: {error}", "at": at(error, root)})
        return None
    _say(answers, {"functions": sorted(functions)})
    return functions


def _answer(functions: Functions, root: Path, name: str, payload: Any) -> dict[str, Any]:
    try:
        value = functions[name](payload)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - what the authors' code crashes on is a finding
        return {"raises": type(error).__name__, "why": str(error)[:300], "at": at(error, root)}
    try:
        return {"value": json.loads(json.dumps(value, default=_plain))}
    except (TypeError, ValueError) as error:
        return {"broken": f"{name} returned what JSON cannot hold: {error}"}


def at(error: BaseException, root: Path) -> str:
    """Where an error was raised: `metrics.py:88` in the checkout, else `adapter:40` (or another module's name)."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).is_relative_to(root)]
    if inside:
        return f"{Path(inside[-1].filename).relative_to(root)}:{inside[-1].lineno}"
    return f"outside the checkout, {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def loaded(root: Path) -> list[str]:
    """The files of the checkout that were imported in this process."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    paths = [Path(file).resolve() for file in files if isinstance(file, str)]
    return sorted({str(path.relative_to(root)) for path in paths if path.is_relative_to(root)})


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays, and sets, as JSON types."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _private(descriptor: int, mode: int) -> TextIO:
    """A text stream on what is now a standard descriptor, which from now on leads to nothing (0) or to stderr (1)."""
    own = os.dup(descriptor)
    instead = os.open(os.devnull, os.O_RDONLY) if mode == os.O_RDONLY else os.dup(2)
    os.dup2(instead, descriptor)
    os.close(instead)
    return os.fdopen(own, "r" if mode == os.O_RDONLY else "w", encoding="ascii")


def _say(answers: TextIO, record: dict[str, Any]) -> None:
    answers.write(json.dumps(record) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
