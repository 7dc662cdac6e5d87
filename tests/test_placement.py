"""Where workers run: device groups, another environment, and what is said of an environment that will not do."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from loom_core.api import UsageError, installed
from loom_core.cli.progress import Quiet
from loom_core.pipeline import run
from loom_core.run.config import RunConfig
from loom_core.run.placement import Placement, check, interpreter, place
from loom_core.run.selection import select
from loom_core.run.store import read_json, read_lines


def environment(folder: Path, *, loom: bool) -> Path:
    """A bare virtual environment; with loom, it also sees what this one has installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)], check=True)
    if loom:
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return folder / "bin" / "python"


def config(tmp_path: Path, **values: object) -> RunConfig:
    given = {"benchmarks": ["passkey@words=64"], "limit": 3, "server": "double", "out": str(tmp_path / "run")}
    return RunConfig().merged({**given, **values}, "test")


def test_a_worker_for_each_group_of_devices() -> None:
    placement = place(RunConfig().merged({"devices": "0+1,2+3"}, "test"))
    assert placement.workers == 2 and placement.groups == (("0", "1"), ("2", "3"))
    seen = [placement.environment(number, 2)["CUDA_VISIBLE_DEVICES"] for number in (1, 2, 3)]
    assert seen == ["0,1", "2,3", "0,1"]


def test_more_workers_than_devices_share_them_in_turns() -> None:
    placement = place(RunConfig().merged({"devices": "0,1", "workers": 4}, "test"))
    assert placement.workers == 4
    assert [placement.environment(n, 4)["HIP_VISIBLE_DEVICES"] for n in (1, 2, 3, 4)] == ["0", "1", "0", "1"]


def test_without_devices_nothing_is_hidden() -> None:
    assert Placement(sys.executable, 2).environment(1, 2) == {"LOOM_THREADS": str(max(1, (os.cpu_count() or 1) // 2))}


@pytest.mark.parametrize("bad", ["0,,1", "0+", "a b"])
def test_bad_devices(bad: str) -> None:
    with pytest.raises(UsageError, match="device"):
        RunConfig().merged({"devices": bad}, "test")


def test_an_interpreter_is_a_file_a_folder_or_a_command(tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", loom=False)
    assert interpreter(str(python)) == interpreter(str(tmp_path / "venv")) == str(python)
    assert interpreter(None) == sys.executable
    with pytest.raises(UsageError, match="no Python"):
        interpreter(str(tmp_path / "nothing"))


def test_an_environment_without_loom_says_what_to_install(tmp_path: Path) -> None:
    python = environment(tmp_path / "bare", loom=False)
    with pytest.raises(UsageError) as caught:
        run(config(tmp_path, python=str(python)), installed(), [], Quiet())
    told = str(caught.value)
    assert "it lacks loom-bench-passkey, loom-core" in told
    assert f"{python} -m pip install loom-bench-passkey loom-core" in told
    assert not (tmp_path / "run").exists(), "nothing is made before the environment is known to do"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("echo broken pipe dream >&2; exit 3", "broken pipe dream"),
        ("exit 3", "it ended with exit code 3"),
        ("echo hello", "it gave an unexpected answer"),
    ],
)
def test_what_is_no_python_is_told(tmp_path: Path, body: str, told: str) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\n{body}\n")
    fake.chmod(0o755)
    selection = select(config(tmp_path), installed())
    with pytest.raises(UsageError, match=told) as caught:
        check(selection, Placement(str(fake), 1))
    assert "import importlib" not in str(caught.value)


def test_workers_of_another_environment_answer_and_are_told_in_the_manifest(tmp_path: Path) -> None:
    python = environment(tmp_path / "full", loom=True)
    result = run(config(tmp_path, python=str(python)), installed(), [], Quiet())
    assert result.outcome.complete and result.outcome.failed == 0
    manifest = read_json(result.folder.manifest)
    (told,) = manifest["environments"]
    assert told["interpreter"] == str(python) and "loom-core" in told["versions"]
    again = run(config(tmp_path / "here"), installed(), [], Quiet())
    first, second = ({row["key"]: row["text"] for _, row in read_lines(r.folder.responses)} for r in (result, again))
    assert first == second, "the place of a worker is in no key"
