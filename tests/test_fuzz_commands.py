"""Mutated run folders through the commands that read one, and hostile command lines: never a traceback."""

from __future__ import annotations

import random
import resource
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzzing import SEED, ask, looked_up_once, made, mutate

N = 500
COMMANDS = (("report", "--format", "md"), ("report", "--format", "csv"), ("compare",), ("diff",), ("leaderboard",))


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


def test_mutated_run_folders_end_in_a_message_or_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up_once(monkeypatch)
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
    looked_up_once(monkeypatch)
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
