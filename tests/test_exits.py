"""What leaves loom for a terminal or a file: nothing that acts on it, in any encoding, to a reader that goes away."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loom_report.render import markdown, tables

from loom_core.cli import exits
from loom_core.contract.foreign import escaped, visible

HOSTILE = "\x1b]52;c;aGk=\x07\x1b[8mgone\x9b2J\u202eend"
SAFE = "⟨U+001B⟩]52;c;aGk=⟨U+0007⟩⟨U+001B⟩[8mgone⟨U+009B⟩2J⟨U+202E⟩end"
ROOT = Path(__file__).resolve().parents[1]


def acting(text: str) -> list[str]:
    """The characters of a text that act on a terminal."""
    return [c for c in text if c != "\n" and c != "\t" and visible(c) != c]


def test_lines_and_tables_show_what_would_act(capsys: pytest.CaptureFixture[str]) -> None:
    exits.say("said: ", HOSTILE)
    exits.say("said: ", HOSTILE, err=True)
    exits.console(width=200).print(HOSTILE, markup=False, highlight=False)
    done = capsys.readouterr()
    assert done.out.startswith(f"said: {SAFE}\n") and done.err == f"said: {SAFE}\n"
    assert not acting(done.out) and done.out.endswith("2J⟨U+202E⟩end\n")
    assert exits.paint(HOSTILE, fg="red") == f"\x1b[31m{SAFE}\x1b[0m"


def test_json_keeps_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": HOSTILE + "\u2028é\ud800", "b": [1, None]}
    exits.say_json(value)
    text = capsys.readouterr().out
    assert not acting(text) and json.loads(text) == value
    assert escaped('{"ä": 1}') == '{"ä": 1}'


def test_data_goes_into_a_pipe_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    exits.say_data("a\u202eb")
    assert capsys.readouterr().out == "a\u202eb\n"


@pytest.mark.parametrize("made", [lambda t: tables.latex_text(t), lambda t: markdown.escape(t), tables._plain_text])
def test_other_formats(made: Callable[[str], str]) -> None:
    assert not acting(made(HOSTILE))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_a_cell_is_no_formula(start: str) -> None:
    cell = tables._plain_text(f"{start}cmd|' /C calc'!A0\r\n")
    buffer = io.StringIO()
    csv.writer(buffer).writerow([cell, tables._plain_text(-1.5)])
    ((first, second),) = list(csv.reader(io.StringIO(buffer.getvalue())))
    assert first[0] == "'" and second == "-1.5"


@pytest.mark.parametrize("path", sorted((ROOT / "loom_core" / "cli").glob("*.py")), ids=lambda path: path.name)
def test_commands_print_by_exits_alone(path: Path) -> None:
    """One place knows how to print: a command that prints by itself would let escape sequences through."""
    if path.name == "exits.py":
        return
    found = [
        f"{path.name}:{node.lineno}: {ast.unparse(node.func)}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "click.echo", "click.secho", "Console")
    ]
    assert found == []


def loom(cwd: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A loom process of its own: streams, encodings and limits are those of a process."""
    environment = {**os.environ, "PYTHONPATH": str(cwd / "site"), **options.pop("environment", {})}
    command = [sys.executable, "-m", "loom_core", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, timeout=180, check=False, **options)


RUN = ("run", "fable", "--model", "toy", "--server", "double", "--out", "r")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "cp1252", "utf-8"])
@pytest.mark.parametrize("arguments", [("report", "r"), ("list",), ("plan", *RUN[1:-2])], ids=lambda a: a[0])
def test_an_eight_bit_terminal_is_told_everything(finished: Path, encoding: str, arguments: tuple[str, ...]) -> None:
    done = loom(finished, *arguments, capture_output=True, environment={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr and done.stdout.decode(encoding)


def test_words_stand_for_what_an_encoding_lacks() -> None:
    exits.prepare()
    assert "Δ 3 µs – ±2 ≥1 語".encode("ascii", "loom.words") == b"diff 3 us - +/-2 >=1 ?"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, toy_site: Path) -> Path:
    """A folder that holds the complete run r, and the plugin it is of."""
    folder = tmp_path_factory.mktemp("exits")
    (folder / "site").symlink_to(toy_site)
    done = loom(folder, *RUN, capture_output=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("arguments", [RUN, ("report", "r"), ("list",)], ids=lambda a: a[0])
def test_a_reader_that_went_away_changes_nothing(finished: Path, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = loom(finished, *arguments, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert done.returncode == 0, done.stderr
    assert b"Error" not in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [RUN, ("report", "r"), ("list",), ("--help",)], ids=lambda a: a[0])
def test_a_full_output_is_one_message(finished: Path, arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = loom(finished, *arguments, stdout=full, stderr=subprocess.PIPE)
    said = done.stderr.decode()
    assert done.returncode == 1
    assert "error: the operating system refused" in said and "No space left on device" in said
    assert "Traceback" not in said and "Exception ignored" not in said


def test_closed_streams_are_no_error(finished: Path) -> None:
    command = f'"{sys.executable}" -m loom_core report r >&- 2>&-'
    assert subprocess.run(["sh", "-c", command], cwd=finished, timeout=180, check=False).returncode == 0
