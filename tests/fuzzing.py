"""What the fuzz tests share: odd values, records with places changed, a command in this process. Tests nothing.

The seed is printed and may be set: LOOM_FUZZ_SEED.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gzip
import importlib
import importlib.metadata
import io
import json
import os
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from loom_kit.runs import MadeTask, make_run, retrieves

from loom_core.api import LoomError
from loom_core.cli import cli, exits
from loom_core.contract.errors import refusal
from loom_core.contract.guard import Accident, guarded
from loom_core.run import executors, manifest, worker
from loom_core.run.writing import to_line

SEED = int(os.environ.get("LOOM_FUZZ_SEED", "20260"))
doctor = importlib.import_module("loom_core.cli.doctor")
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**400, 1e308, -0.0, "", "x", "../../x", "\0", "\ud800", "\x1b[2J", "x" * 300),
    *([], {}, [[]], [None], {"": None}, {"name": 1}, [1, "x"], {"error": 5}),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place within a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def odd(random_: random.Random) -> Any:
    """An odd value, the caller's own."""
    return copy.deepcopy(random_.choice(ODD))


def mutated(value: Any, random_: random.Random) -> Any:
    """The value with one to three places replaced, taken out, or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(random_.randint(1, 3)):
        path = random_.choice(list(places(value)))
        if not path:
            return odd(random_)
        *way, last = path
        holder = value
        for key in way:
            holder = holder[key]
        how = random_.random()
        if how < 0.2:
            del holder[last]
        elif how < 0.3 and isinstance(holder, list):
            holder.append(holder[last])
        elif how < 0.35 and isinstance(holder, dict):
            holder[random_.choice(["x", "", "name", "error"])] = odd(random_)
        else:
            holder[last] = odd(random_)
    return value


def line_of(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def mutate(folder: Path, random_: random.Random) -> str:
    """Change one file of a run folder; what was done, for the message."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".jsonl", ".gz") and p.name != "report.json")
    path = random_.choice(files)
    content = path.read_bytes()
    raw = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    if random_.random() < 0.15:
        changed = random_.choice([b"", b"null", b"[]\n", b"{}\n", b"[" * 100_000, b"\xff\xfe", raw[: len(raw) // 2]])
    elif path.suffix == ".json":
        try:
            changed = line_of(mutated(json.loads(raw), random_))
        except (ValueError, RecursionError):
            changed = b"5"  # an earlier change left no JSON
    else:
        lines = raw.splitlines(keepends=True) or [b"\n"]
        for _ in range(random_.randint(1, 3)):
            number = random_.randrange(len(lines))
            how = random_.random()
            if how < 0.1:
                lines.insert(number, lines[number])
            elif how < 0.2:
                lines[number] = random_.choice([b"\n", b"null\n", b"[1]\n", b"5\n", b'{"key":1}\n', b"\0\n"])
            else:
                try:
                    lines[number] = line_of(mutated(json.loads(lines[number]), random_))
                except (ValueError, RecursionError):
                    continue
        changed = b"".join(lines)
    path.write_bytes(gzip.compress(changed, 1) if path.suffix == ".gz" and random_.random() < 0.9 else changed)
    return f"{path.name}: {changed[:300]!r}"


def ask(*arguments: str) -> tuple[int, str]:
    """A command in this process: its exit code and what it said. Whatever is no message of loom's is raised."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code, words = _asked(list(arguments))
        said.flush()
    return code, said.buffer.getvalue().decode("utf-8") + words  # type: ignore[attr-defined]


def _asked(arguments: list[str]) -> tuple[int, str]:
    exits.prepare()
    try:
        code = cli.main(arguments, prog_name="loom", standalone_mode=False)
        return code if isinstance(code, int) else 0, ""
    except OSError as error:
        told = refusal(error)  # as `loom_core.cli.main` tells it
        return told.exit_code, str(told)
    except LoomError as error:
        assert error.what.strip()
        return error.exit_code, str(error)
    except (click.ClickException, click.Abort, click.exceptions.Exit) as error:
        return int(getattr(error, "exit_code", 1)), str(error)


def made(path: Path) -> Path:
    """A small scored run with two arms."""
    task = MadeTask(levels={"1k": 256, "2k": 512}, depths=(0.0, 1.0), repeats=2, per_document=2)
    folder = make_run(path, retrieves({"dense": 0.9, "snapkv:budget=4x": 0.6}), tasks=(task,))
    line = {"name": "loom", "metric": "exact_match", "value": 0.5, "n": 8, "missing": 0, "digits": 2, "note": ""}
    line |= {"headline": True, "low": 0.1, "high": 0.9, "interval": "wilson", "delta": None}
    delta = {"value": -0.1, "low": -0.3, "high": 0.1, "interval": "t", "n_pairs": 8, "p": 0.3, "test": "flips"}
    tables = {"passkey": {"dense": [line], "snapkv:budget=4x": [{**line, "delta": delta}]}}
    folder.official.write_text(json.dumps(tables), "ascii")
    folder.unscored.write_text('{"exact_match": {"no reason given": 2}}', "ascii")
    judge = {"judge": "double:x", "identity": {}, "calls": 2, "asked": 2, "failed": 0, "n_in": 4, "n_out": 2}
    judge |= {
        "seconds": 1.0,
        "cost": None,
        "metrics": {"m@1": {"n": 1, "n_without_value": 1, "calls": 2, "reasons": {}}},
    }
    folder.judge.write_text(json.dumps(judge), "ascii")
    return folder.path


class WorkerInThread:
    """In the place of `process.WorkerProcess`: the worker's own code in a thread, so that a run costs no process.

    It says over a queue what a worker says over its pipe.
    """

    def __init__(self, number: int, order: Mapping[str, Any], events: Any, log: Path, **_: Any) -> None:
        self.number, self.ready, self.pid = number, False, 0
        self.last_sign, self.last_lines = time.monotonic(), deque[str](maxlen=20)
        self.orders: queue.Queue[dict[str, Any]] = queue.Queue()
        self.stopping = threading.Event()
        self._events = events
        self.send(order)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, order: Mapping[str, Any]) -> None:
        """An order, as it would come over the pipe."""
        self.orders.put(json.loads(to_line(order)))

    def _serve(self) -> None:
        try:
            with guarded("a worker"):
                worker._serve(SimpleNamespace(send=self._said, orders=self.orders, stopping=self.stopping))
        except LoomError as error:
            self._said({"op": "failed", "error": error.to_json(), "permanent": not isinstance(error, Accident)})
        except BaseException as error:  # noqa: BLE001 - a thread has nobody to raise to
            self.last_lines.append(repr(error))
        self._events.put((self, {"op": "gone"}))

    def _said(self, event: dict[str, Any]) -> None:
        self._events.put((self, json.loads(to_line(event))))

    def stop(self) -> None:
        """Ask it to end."""
        self.stopping.set()
        self.orders.put({"op": "stop"})

    kill = stop

    def close(self, seconds: float) -> None:
        """Wait for its end."""
        self._thread.join(seconds)

    def death(self) -> str:
        """How it ended."""
        return "the thread ended" + "; ".join(["", *self.last_lines])


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process: workers are threads, and what a run asks the machine (versions, git, disk) is left out."""
    monkeypatch.setattr(executors, "WorkerProcess", WorkerInThread)
    monkeypatch.setattr(manifest, "versions", lambda *_: {})
    monkeypatch.setattr(manifest, "git_state", lambda *_: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each command line looks up anew stays as it is while a test runs: what is installed, and the devices."""
    monkeypatch.setattr(importlib.metadata, "entry_points", functools.cache(importlib.metadata.entry_points))
    monkeypatch.setattr(importlib.metadata, "version", functools.cache(importlib.metadata.version))
    devices = doctor._devices  # it starts a process
    monkeypatch.setattr(doctor, "_devices", functools.cache(lambda: tuple(devices())))
