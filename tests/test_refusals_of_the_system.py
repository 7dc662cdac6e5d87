"""What the operating system refuses: one message, nothing lost, and the same command goes on once the cause is gone."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loom_core.api import RunError, installed
from loom_core.cli import main
from loom_core.contract.errors import refusal
from loom_core.run.writing import Appender, recording, whole_file, write_json

SYNOPSIS = ("--model", "toy", "--server", "double", "--quiet")
RUN = ("run", "fable@n=60,words=300", *SYNOPSIS, "--out")


@pytest.fixture
def start(tmp_path: Path, toy_plugin: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A loom process in the test's folder, `before` being called in it first."""

    def run(*arguments: str, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "loom_core", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, preexec_fn=before, capture_output=True, text=True, timeout=180, check=False
        )

    return run


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    """The command ended in one message that says these words."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def limited(kind: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (value, value))


LONG = "x" * 5000
ABSURD = [
    ("plan", ",".join(f"fable:{i}-{'t' * 20}" for i in range(60)), *SYNOPSIS[:-1]),
    ("plan", LONG, *SYNOPSIS[:-1]),
    ("run", LONG + ".toml"),
    ("run", "a/" + LONG),
    ("plan", "fable", "--model", LONG),
    ("plan", "fable", *SYNOPSIS[:-1], "--data-dir", LONG),
    ("run", "fable", *SYNOPSIS, "--out", LONG),
    ("run", "fable", *SYNOPSIS, "--python", LONG),
    ("plan", "fable", *SYNOPSIS[:-1], "--template", f"fable:tell={LONG}"),
    ("plan", "fable", *SYNOPSIS[:-1], "--suite", LONG),
    ("report", LONG),
    ("report", LONG, "--format", "json"),
    ("score", LONG),
    ("view", LONG),
    ("reproduce", LONG),
    ("compare", LONG, LONG),
    ("diff", LONG, LONG),
    ("leaderboard", LONG),
    ("new", "metric", "some", "--out", LONG),
    ("check", "--oracle", LONG),
    ("data", "fetch", LONG),
    ("data", "verify", "fable", "--data-dir", LONG),
    ("info", LONG),
    ("list", LONG),
]


@pytest.fixture
def inside(
    tmp_path: Path, toy_plugin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str]]]:
    """loom in this process and the test's folder: its exit code and what it said on standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOM_OFFLINE", "1")
    monkeypatch.delenv("LOOM_DATA", raising=False)
    installed.cache_clear()  # whoever asked first in this process may not have had the toy plugin

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["loom", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    yield run
    installed.cache_clear()


@pytest.mark.parametrize("arguments", ABSURD, ids=lambda arguments: "-".join(a[:10] for a in arguments[:6]))
def test_absurd_texts_are_told_in_one_message(inside: Any, arguments: tuple[str, ...]) -> None:
    code, said = inside(*arguments)
    assert code in (1, 2) and len(said) < 40_000
    assert sum(line.lower().startswith("error: ") for line in said.splitlines()) == 1, said[:400]


@pytest.mark.parametrize("name", ["out", "model", "python", "data_dir", "server", "suite"])
@pytest.mark.parametrize("command", ["plan", "run"])
def test_nul_in_a_study_file_is_refused(inside: Any, command: str, name: str) -> None:
    values = {"benchmarks": ["fable"], "model": "toy", "server": "double", name: "a\0b"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    Path("s.toml").write_text("\n".join(lines))
    code, said = inside(command, "s.toml")
    assert code == 2 and f"bad value for '{name}'" in said and "NUL" in said


@pytest.mark.parametrize("content", ["x = " + "[" * 9000, "[benchmark]\nx = " + "{a=" * 5000], ids=["lists", "tables"])
def test_toml_nested_too_deep_is_told(inside: Any, content: str) -> None:
    Path("s.toml").write_text(content)
    code, said = inside("plan", "s.toml")
    assert code == 2 and "s.toml" in said and "nested too deep" in said


def test_toml_may_begin_with_a_byte_order_mark(inside: Any) -> None:
    text = 'benchmarks = ["fable"]\nmodel = "toy"\nserver = "double"\n'
    Path("s.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert inside("plan", "s.toml") == (0, "")


def test_a_limit_on_file_sizes_loses_nothing(start: Any, tmp_path: Path) -> None:
    refused(
        start(*RUN, "r", before=limited(resource.RLIMIT_FSIZE, 15_000)), "run folder cannot be written", "ulimit -f"
    )
    assert not list((tmp_path / "r").glob("*.partial"))
    done = start(*RUN, "r")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "r/responses.jsonl").read_text().splitlines()]
    assert len(lines) == len({line["job"] for line in lines}) == 120


@pytest.mark.parametrize("command", [("report",), ("score",), ("report", "--bundle")], ids=" ".join)
def test_a_limit_on_file_sizes_keeps_what_was_there(start: Any, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert start(*RUN, "r").returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir() if path.is_file()}
    more = [str(tmp_path / "b.tgz")] if "--bundle" in command else []
    done = start(command[0], "r", *command[1:], *more, before=limited(resource.RLIMIT_FSIZE, 2_000))
    refused(done, "File too large", "ulimit -f")
    after = {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir() if path.is_file()}
    assert {k: v for k, v in after.items() if k != ".lock"} == {k: v for k, v in before.items() if k != ".lock"}
    assert not (tmp_path / "b.tgz").exists()


@pytest.mark.parametrize("n", [6, 9, 12, 15])
def test_too_few_open_files_are_one_message(start: Any, n: int) -> None:
    done = start(*RUN, "r", before=limited(resource.RLIMIT_NOFILE, n))
    assert "Traceback" not in done.stderr and done.returncode in (0, 1, 2, 3), done.stderr


@pytest.mark.parametrize("command", [("run",), ("report",), ("score",)], ids=" ".join)
def test_what_cannot_be_written_ends_in_one_message(inside: Any, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert inside(*RUN, "r")[0] == 0
    # A folder in the way is refused whoever asks; permissions would not stop root.
    for name in ("report.json", "manifest.json", *(path.name for path in (tmp_path / "r").glob("scores-*"))):
        (tmp_path / "r" / f"{name}.partial").mkdir()
    code, said = inside(command[0], "r", *command[1:])
    assert code == 1 and said.count("error: ") == 1
    assert "the run folder cannot be written" in said and "Is a directory" in said
    assert inside("report", "r", "--format", "md")[0] == 0


def test_a_folder_deleted_meanwhile_ends_in_one_message(start: Any, tmp_path: Path, toy_plugin: Path) -> None:
    command = [sys.executable, "-m", "loom_core", *RUN, "r", "--server-option", "seconds=0.05"]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while (
        not ((file := tmp_path / "r/responses.jsonl").exists() and file.stat().st_size) and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    shutil.rmtree(tmp_path / "r")
    _, said = running.communicate(timeout=120)
    assert running.returncode == 1 and "Traceback" not in said and said.count("error: ") == 1, said


# --- the one place ---------------------------------------------------------------------------------------------------


@contextmanager
def small_files() -> Iterator[None]:
    """No file of this process grows beyond 1000 bytes: not longer than needed, for pytest may write to one too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(RunError, match=r"(?s)cannot be written.*x\.json.*too large.*ulimit -f"), small_files():
        write_json(path, {"a": "x" * 5000})
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write("half")
        raise ZeroDivisionError
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_lines_before_the_refusal_are_kept(tmp_path: Path) -> None:
    out = Appender(tmp_path / "r.jsonl")
    out.append({"n": 1})
    with small_files():
        with pytest.raises(RunError, match=r"(?s)cannot be written.*r\.jsonl"):
            out.append({"n": "x" * 5000})
        with pytest.raises(RunError):
            out.close()
    assert json.loads((tmp_path / "r.jsonl").read_bytes().split(b"\n")[0]) == {"n": 1}


def test_other_files_pass_by(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), recording(tmp_path / "mine"):
        (tmp_path / "other").read_bytes()
    with pytest.raises(RunError, match="cannot be written"), recording(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b").mkdir()


def test_every_refusal_has_a_next_step() -> None:
    said = str(refusal(OSError(28, "No space left on device", "/x/y")))
    assert "where: /x/y" in said and "why: No space left on device" in said and "next: free some space" in said
    assert "TimeoutError" in str(refusal(TimeoutError()))
