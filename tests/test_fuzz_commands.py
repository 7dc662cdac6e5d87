"""Mutated run folders through the commands that read one, and hostile command lines: never a traceback.

The seed is printed and may be set: LOOM_FUZZ_SEED.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from loom_kit.runs import MadeTask, make_run, retrieves

from loom_core.api import LoomError
from loom_core.cli import cli
from loom_core.contract.errors import refusal

SEED = int(os.environ.get("LOOM_FUZZ_SEED", "20260"))
N = 500
COMMANDS = (("report", "--format", "md"), ("report", "--format", "csv"), ("compare",), ("diff",), ("leaderboard",))
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


def mutated(value: Any, random_: random.Random) -> Any:
    """The value with one to three places replaced, taken out, or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(random_.randint(1, 3)):
        path = random_.choice(list(places(value)))
        if not path:
            return random_.choice(ODD)
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
            holder[random_.choice(["x", "", "name", "error"])] = random_.choice(ODD)
        else:
            holder[last] = random_.choice(ODD)
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
    result = CliRunner().invoke(cli, list(arguments), standalone_mode=False)
    error = result.exception
    if isinstance(error, OSError):
        error = refusal(error)  # as `loom_core.cli.main` tells it
    if error is None:
        code = result.return_value
        return code if isinstance(code, int) else 0, result.output
    if isinstance(error, LoomError):
        assert error.what.strip()
        return error.exit_code, str(error)
    if isinstance(error, (click.ClickException, click.exceptions.Exit, click.Abort)):
        return int(getattr(error, "exit_code", 1)), str(error)
    if isinstance(error, SystemExit):
        return int(error.code or 0), result.output
    raise error


def fuzz(base: Path, work: Path, seed: int, n: int, report: Callable[[str], None]) -> Counter[int]:
    """n mutations of copies of a run folder, each through one command; exit codes by how often they came."""
    random_, codes = random.Random(seed), Counter[int]()
    for number in range(n):
        folder = work / "mutated"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        done = "; ".join(mutate(folder, random_) for _ in range(random_.choice((1, 1, 2))))
        name, *rest = COMMANDS[number % len(COMMANDS)]
        others = [str(base)] if name in ("compare", "diff") else []
        try:
            code, said = ask(name, str(folder), *others, *rest)
        except Exception as error:
            report(f"{name} of {done}: {type(error).__name__}: {error}")
            raise
        assert code != 0 or said.strip(), f"{name} said nothing and did nothing: {done}"
        codes[code] += 1
    return codes


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


def test_mutated_run_folders_end_in_a_message_or_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print(f"LOOM_FUZZ_SEED={SEED}")
    base = made(tmp_path / "base")
    with chdir(tmp_path):
        codes = fuzz(base, tmp_path, SEED, N, print)
    assert codes[0] > N // 10 and codes[1] > N // 10, "both ends are met"


N_LINES = 3000
TYPED = (
    "plan",
    "plan",
    "plan",
    "prompts",
    "list",
    "info",
    "report",
    "compare",
    "diff",
    "leaderboard",
    "doctor",
    "zz",
)
WORDS = (
    *(
        "passkey",
        "passkey:loom",
        "passkey@words=8",
        "passkey@words={}",
        "passkey@words={8,",
        "niah",
        "nosuch",
        "passkey@",
    ),
    *("base", "./base", ".", "..", "x.toml", "/", "", " ", "\udcff", "\x1b[2J", "a" * 5000, "{", "}", "@", ":", "+"),
    *("kv", "benchmarks", "metrics", "servers", "augmentations", "snapkv", "double", "toy", "-", "--"),
)
OPTIONS = (
    *("--model", "--server", "--accel", "--lengths", "--limit", "--seed", "--repeats", "--overlength", "--protocol"),
    *("--subset", "--budget", "--until", "--model-option", "--server-option", "--metric-option", "--judge", "--format"),
    *("--template", "--thinking", "--data-dir", "--nosuch", "-n", "-h"),
)
VALUES = (
    *("toy", "double", "1", "0", "-1", "1k", "64", "128k", "nan", "inf", "1e9", "9" * 30, "error", "skip", "truncate"),
    *("bm25:k=1", "bm25+bm25", "bm25:k={1,2}", "snapkv", "snapkv:budget=nan", "window=1", "window=-1", "answers=null"),
    *("code.run=maybe", "x=y", "=", "a=b,c", "double:toy", "md", "csv", "json", "ci=2", "30m", "<a>,</a>", "{1,2}", ""),
)


def line(random_: random.Random) -> list[str]:
    """A command line as a tired or hostile user types it; what it plans is small."""
    name = random_.choice(TYPED)
    arguments = [random_.choice(WORDS) for _ in range(random_.choice((0, 1, 1, 1, 2)))]
    for _ in range(random_.choice((0, 1, 1, 2, 3))):
        arguments += [random_.choice(OPTIONS), random_.choice(VALUES)]
    if name in ("plan", "prompts"):
        arguments += ["--offline", "-n", "2"] if random_.random() < 0.9 else []
        arguments += ["--model", "toy"]
    return [name, *arguments]


def test_hostile_command_lines_end_in_a_message_or_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"LOOM_FUZZ_SEED={SEED}")
    monkeypatch.setenv("LOOM_DATA", "")
    monkeypatch.setenv("LOOM_OFFLINE", "1")
    made(tmp_path / "base")
    random_, before = random.Random(SEED), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with chdir(tmp_path):
        for _ in range(N_LINES):
            arguments = line(random_)
            try:
                code, said = ask(*arguments)
            except Exception as error:
                raise AssertionError(f"loom {arguments}: {type(error).__name__}: {error}") from error
            assert code != 0 or said.strip(), f"loom {arguments} said nothing and did nothing"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "KiB: under 1 GiB"
