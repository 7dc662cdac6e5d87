"""`loom new` writes distributions that pass `loom check`; `loom doctor` says what is here and what is broken."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from loom_kit.cli.new import KINDS
from loom_kit.scaffold import write

from loom_core.api import UsageError

RUNS = {
    "benchmark": ("run", "one_two", "--model", "toy"),
    "server": ("run", "fable@n=2:tell", "--server", "one_two", "--model", "any"),
    "metric": ("info", "one_two"),
    "accel": ("info", "one_two"),
}


def install(loom: Any, folder: Path, site: Path) -> None:
    """What `pip install -e` does, by hand: the package on the path, and its entry point."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    package = project["name"].replace("-", "_")
    shutil.copytree(folder / package, site / package)
    points = "".join(f"{k} = {v}\n" for k, v in project["entry-points"]["loom"].items())
    info = site / f"{package}-{project['version']}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {line}\n" for line in project["dependencies"])
    head = f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head + needs, "utf-8")
    (info / "entry_points.txt").write_text(f"[loom]\n{points}", "utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_passes_the_check_as_it_is(
    loom: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "accel" and importlib.util.find_spec("loom_server_hf") is None:
        pytest.skip("loom_server_hf is not installed")
    done = loom("new", kind, "one-two")
    folder = loom.cwd / done.out.splitlines()[0]
    assert {path.name for path in folder.iterdir()} >= {"pyproject.toml", "README.md", "tests"}
    assert not [path for path in folder.rglob("*.*") if "$" in path.read_text("utf-8")]
    site = tmp_path / "new site"
    site.mkdir()
    install(loom, folder, site)
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ['PYTHONPATH']}")
    checked = loom("check", folder.name, seconds=300)
    assert "FAIL" not in checked.out and ("all checks passed" in checked.out or "no check failed" in checked.out)
    loom(*RUNS[kind])


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
