"""`loom new` writes distributions that pass `loom check`; `loom doctor` says what is here and what is broken."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loom_kit.cli.new import KINDS
from loom_kit.scaffold import TEMPLATES, write

from loom_core.api import UsageError

LONG = "a-name-of-several-words"
RUNS = {
    "benchmark": ("run", "my_benchmark", "--model", "toy"),
    "server": ("run", "fable@n=2:tell", "--server", "my_server", "--model", "any"),
    "metric": ("info", "my_metric"),
    "accel": ("info", "my_accel"),
    "prompt": ("run", "fable@n=2:tell", "--model", "toy", "--accel", "my_prompt:share=0.5"),
    "retriever": ("run", "fable@n=2:tell", "--model", "toy", "--accel", "my_retriever:k=1,size=20"),
    "strategy": ("run", "fable@n=2:tell", "--model", "toy", "--accel", "my_strategy:rounds=2"),
    "report": ("list", "reports"),
    "command": ("my-command", "--help"),
    "suite": ("run", "--suite", "my_suite", "--model", "toy"),
}
NEEDS = {"accel": "loom_kv", "retriever": "loom_rag", "suite": "loom_bench_passkey"}
"""What a kind stands on besides core."""


def install(folder: Path, site: Path) -> None:
    """What `pip install -e` does, by hand: the package on the path, and its entry points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    package = project["name"].replace("-", "_")
    shutil.copytree(folder / package, site / package)
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    )
    info = site / f"{package}-{project['version']}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {line}\n" for line in project["dependencies"])
    head = f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head + needs, "utf-8")
    (info / "entry_points.txt").write_text("".join(groups), "utf-8")


@dataclass(frozen=True)
class Made:
    """One new distribution of each kind, and the folder in which all of them are installed."""

    folders: dict[str, Path]
    site: Path

    @property
    def path(self) -> str:
        """PYTHONPATH with them."""
        return os.pathsep.join([str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Every kind, as `loom new` writes it."""
    here, site = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("site")
    folders = {kind: write(kind, f"my-{kind}", here / kind)[0] for kind in KINDS}
    for folder in folders.values():
        install(folder, site)
    return Made(folders, site)


def run(*command: object, cwd: Path, path: str = "") -> None:
    """A program of this environment; its output is the message where it fails."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": path} if path else {})
    words = [sys.executable, "-m", *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=cwd, env=env, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_every_kind_has_templates_and_is_listed() -> None:
    assert {path.parent.name for path in TEMPLATES.glob("*/kind.toml")} == set(KINDS) == set(RUNS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_passes_the_check_as_it_is(
    loom: Any, made: Made, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind in NEEDS and importlib.util.find_spec(NEEDS[kind]) is None:
        pytest.skip(f"{NEEDS[kind]} is not installed")
    monkeypatch.setenv("PYTHONPATH", made.path)
    project = tomllib.loads((made.folders[kind] / "pyproject.toml").read_text("utf-8"))["project"]
    checked = loom("check", project["name"], seconds=300)
    assert "FAIL" not in checked.out and ("all checks passed" in checked.out or "no check failed" in checked.out)
    assert f"ok   {project['name'].replace('-', '_')}: imports only the public interface" in checked.out
    done = loom(*RUNS[kind])
    assert kind != "report" or "my_report" in done.out


def test_a_new_report_format_and_a_new_command_read_a_run(
    loom: Any, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", made.path)
    loom("run", "fable@n=2:tell", "--model", "toy")
    lines = loom("report", loom.folder(), "--format", "my_report").out.splitlines()
    assert lines[0].split("\t")[:3] == ["task", "arm", "metric"] and lines[1].startswith("fable:tell\tdense\t")
    assert loom("my-command", loom.folder()).out == "dense: 2 answered, 0 error, 0 missing\n"
    assert "not a run folder" in loom("my-command", "nowhere", code=None).err


def test_their_own_tests_pass(made: Made) -> None:
    """All but the KV method's, whose one test is the check of above over again, which runs models."""
    folders = [made.folders[kind] / "tests" for kind in KINDS if kind != "accel"]
    run("pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *folders, cwd=made.site, path=made.path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_whole(made: Made, kind: str) -> None:
    """The form that tests/test_plugins_complete.py asks of the plugins of this repository."""
    folder = made.folders[kind]
    table = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    project, package = table["project"], table["tool"]["flit"]["module"]["name"]
    assert project["name"].replace("-", "_") == package
    assert project["license"] == "Apache-2.0" and project["description"].endswith(".")
    module = "commands" if kind == "command" else "plugin"
    group = "loom.commands" if kind == "command" else "loom"
    assert {key: list(points.values()) for key, points in project["entry-points"].items()} == {
        group: [f"{package}.{module}"]
    }
    assert {path.name for path in (folder / package).iterdir()} >= {
        "__init__.py",
        "py.typed",
        "parts.py",
        f"{module}.py",
    }
    readme = (folder / "README.md").read_text("utf-8")
    assert readme.startswith(f"# {project['name']}\n") and len(readme.split()) >= 60
    assert list((folder / "tests").glob("test_*.py"))
    assert not [path for path in folder.rglob("*.*") if "$" in path.read_text("utf-8")]


@pytest.mark.parametrize("kind", KINDS)
def test_dependencies_are_true(made: Made, kind: str) -> None:
    """What is declared is imported, and what is imported is declared; a suite names what it requires in its file."""
    folder = made.folders[kind]
    rows = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    declared = {re.split(r"[^A-Za-z0-9-]", row)[0].replace("-", "_") for row in rows}
    package = next(path for path in folder.iterdir() if path.name.startswith("loom_"))
    trees = [ast.parse(path.read_text("utf-8")) for path in package.rglob("*.py")]
    modules = [
        name
        for tree in trees
        for node in ast.walk(tree)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None)])
        if name
    ]
    tops = {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names) - {package.name}
    assert declared - {"loom_bench_passkey"} == tops
    if "loom_bench_passkey" in declared:
        assert 'benchmarks = ["passkey' in (package / "suite.toml").read_text("utf-8")


def test_they_are_formatted_and_linted_whatever_their_name(made: Made, tmp_path: Path) -> None:
    for kind in KINDS:
        write(kind, LONG, tmp_path / kind)
    for check in (["check"], ["format", "--check"]):
        run("ruff", *check, "--no-cache", tmp_path, *made.folders.values(), cwd=tmp_path)


def test_they_are_typed(made: Made, tmp_path: Path) -> None:
    """torch is not read: one method names its Tensor, and reading it takes longer than all the rest."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\n\n[mypy-torch.*]\nfollow_imports = skip\n", "utf-8")
    packages = sorted(path for path in made.site.iterdir() if (path / "py.typed").exists())
    assert len(packages) == len(KINDS)
    config = f"--config-file={tmp_path / 'mypy.ini'}"
    run("mypy", config, f"--cache-dir={tmp_path / 'cache'}", *packages, cwd=made.site)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("metrik", "x"), "unknown kind of plugin 'metrik'"),
        (("metric", "My Metric"), "cannot be a plugin's name"),
        (("metric", "../x"), "cannot be a plugin's name"),
    ],
)
def test_what_cannot_be_made(loom: Any, arguments: tuple[str, str], says: str) -> None:
    assert says in loom("new", *arguments, code=2).err


def test_a_folder_that_exists_is_left_alone(loom: Any) -> None:
    (loom.cwd / "loom-metric-mine").mkdir()
    assert "exists already" in loom("new", "metric", "mine", code=2).err


def test_the_doctor_tells_what_is_here(loom: Any) -> None:
    rows = json.loads(loom("doctor", "--format", "json", code=None).out)
    subjects = {row["subject"] for row in rows}
    assert {"loom", "libraries", "plugins", "data", "devices"} <= subjects
    assert {row["mark"] for row in rows} <= {"ok", "note", "warning", "broken"}
    assert "plugins: " in loom("doctor", code=None).out


def test_the_doctor_names_what_is_broken(loom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "broken site"
    (site / "loom_bench_bad-1.dist-info").mkdir(parents=True)
    (site / "loom_bench_bad.py").write_text("raise RuntimeError('no moon tonight')\n", "utf-8")
    (site / "loom_bench_bad-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: loom-bench-bad\nVersion: 1\n", "utf-8"
    )
    (site / "loom_bench_bad-1.dist-info" / "entry_points.txt").write_text("[loom]\nbad = loom_bench_bad\n", "utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ['PYTHONPATH']}")
    done = loom("doctor", code=1)
    assert "no moon tonight" in done.out and "broken" in done.out
    missing = loom("doctor", code=1, env={"LOOM_DATA": str(tmp_path / "nowhere")})
    assert "the mirror folder does not exist" in missing.out


def test_a_metric_may_be_spelt_as_metrics_are(tmp_path: Path) -> None:
    folder, distribution = write("metric", "first_name", tmp_path / "made")
    assert distribution == "loom-metric-first-name" and 'name="first_name"' in next(
        folder.rglob("plugin.py")
    ).read_text("utf-8")
    with pytest.raises(UsageError, match="cannot be a plugin's name"):
        write("server", "first_name", tmp_path / "other")
