"""Fixtures of all tests: a third party's plugin on the path, the command line in a folder of its own, and the choice of
slow cases by the day."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loom_core.api import Catalog
from loom_core.registry.plugins import load_all

ALL = "LOOM_TEST_ALL"
"""Set to 1 before a release: nothing is left for another day."""


HERE = Path(__file__).resolve().parent / "tests"
MARK = "LOOM_TEST_MARK"
SECONDS = 120.0


def write_distribution(site: Path, name: str, entry_points: str, version: str = "0.1.0") -> None:
    """A hand-written .dist-info: what pip leaves of an installed distribution."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n", "utf-8")
    (info / "entry_points.txt").write_text(entry_points, "utf-8")


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugins of third parties installed in it."""
    site = tmp_path_factory.mktemp("site")
    for name in ("fable", "motto", "proverbs"):
        shutil.copytree(HERE / "third_party" / f"loom_bench_{name}", site / f"loom_bench_{name}")
        write_distribution(site, f"loom-bench-{name}", f"[loom]\n{name} = loom_bench_{name}\n")
    return site


@pytest.fixture
def toy_plugin(toy_site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fable plugin, found by this process and by those it starts."""
    monkeypatch.syspath_prepend(str(toy_site))
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", str(toy_site) + (os.pathsep + before if before else ""))
    return toy_site


@pytest.fixture
def catalog(toy_plugin: Path) -> Catalog:
    """Everything installed, the fable plugin included."""
    return load_all()


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Loom:
    """The command line, started in a folder of its own; every process it starts carries `mark` in its environment."""

    cwd: Path
    env: Mapping[str, str]

    def __call__(
        self,
        *arguments: object,
        code: int | None = 0,
        env: Mapping[str, str] | None = None,
        seconds: float = SECONDS,
        input: str | None = None,
    ) -> Done:
        """Run to the end. A user's mistake never shows a traceback. code: the exit code to expect; None = any. input:
        what stands on standard input; None = nothing is there.
        """
        child = self.start(*arguments, env=env, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE)
        try:
            out, err = child.communicate(input, timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            raise AssertionError(f"loom {arguments} did not end in {seconds} s:\n{out}\n{err}") from None
        if child.returncode in (1, 2, 3):
            assert "Traceback" not in out + err, err
        assert code is None or child.returncode == code, f"exit code {child.returncode}:\n{out}\n{err}"
        return Done(child.returncode, out, err)

    def start(
        self, *arguments: object, env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Start it and do not wait."""
        return subprocess.Popen(
            [sys.executable, "-m", "loom_core", *map(str, arguments)],
            cwd=self.cwd,
            env={**os.environ, **self.env, **(env or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def folder(self) -> Path:
        """The one run folder below runs/."""
        (found,) = (self.cwd / "runs").iterdir()
        return found

    def records(self, folder: Path | None = None) -> list[dict[str, Any]]:
        """The recorded responses of a run; a line that is just being written is not one yet."""
        path = (folder or self.folder()) / "responses.jsonl"
        lines = path.read_text("ascii").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def scores(self, metric: str, folder: Path | None = None) -> list[dict[str, Any]]:
        """The stored scores of one metric (`name@version`)."""
        path = (folder or self.folder()) / f"scores-{metric}.jsonl"
        return [json.loads(line) for line in path.read_text("ascii").splitlines()]

    def processes(self) -> list[int]:
        """The ids of the processes that this command line started and that still run (Linux)."""
        found, wanted = [], f"{MARK}={self.env[MARK]}".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if wanted in path.read_bytes().split(b"\0") and path.with_name("cmdline").read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found


@pytest.fixture
def loom(tmp_path: Path, toy_plugin: Path) -> Iterator[Loom]:
    """The command line in an empty folder, offline, with the fable plugin; no process of it outlives the test."""
    cwd = tmp_path / "here"
    cwd.mkdir()
    env = {
        MARK: uuid.uuid4().hex,
        "OMP_NUM_THREADS": "1",
        "LOOM_OFFLINE": "1",
        "LOOM_CACHE": str(tmp_path / "cache"),
        "LOOM_DATA": "",
        "COLUMNS": "200",
        "PYTHONFAULTHANDLER": "",
    }
    made = Loom(cwd, env)
    yield made
    for process in made.processes():
        os.kill(process, 9)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data; skips where there is none."""
    path = Path(os.environ.get("LOOM_SHARED") or HERE.parents[1] / "shared")
    if not path.is_dir():
        pytest.skip("no folder of shared data: ../shared of the repository, or LOOM_SHARED")
    return path


@pytest.fixture
def of_the_day() -> Callable[[Any, Sequence[Any], int], None]:
    """Skips a case of a slow matrix unless it is among today's: each day other ones, all within a round."""

    def choose(case: Any, cases: Sequence[Any], n: int = 1) -> None:
        day = datetime.datetime.now(datetime.UTC).toordinal()
        todays = {(day * n + i) % len(cases) for i in range(n)}
        if os.environ.get(ALL) != "1" and list(cases).index(case) not in todays:
            pytest.skip(f"a case of another day: {ALL}=1 runs them all")

    return choose
