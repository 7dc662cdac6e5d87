"""Every distribution builds as a wheel, and core with one benchmark works from wheels where torch is absent."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
CLEAN = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def run(*command: str | Path, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command's result; on failure its output becomes the test's message."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=600, cwd=cwd, env=CLEAN, check=False
    )
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done


@functools.cache
def script(name: str) -> Any:
    """A script of release/ as a module."""
    spec = importlib.util.spec_from_file_location(f"release_{name}", ROOT / "release" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One wheel of each distribution, by its name."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "--wheel-dir", folder, ROOT, *PLUGINS)
    return {path.name.partition("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def clean(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that holds core, the passkey benchmark and what they require."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=True)
    programs = folder / "bin"
    pip = (sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet")
    done = run(*pip, wheels["loom-core"], wheels["loom-bench-passkey"], check=False)
    if done.returncode != 0:
        pytest.skip(f"the light dependencies cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return programs


def test_every_distribution_builds(wheels: dict[str, Path]) -> None:
    assert set(wheels) == {"loom-core", *(plugin.name for plugin in PLUGINS)}


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda path: path.name)
def test_wheel_holds_the_package_and_nothing_else(folder: Path, wheels: dict[str, Path]) -> None:
    builder = script("build")
    name = builder.project(folder)["name"]
    assert list(builder.content_faults(folder, wheels[name])) == []


def test_torch_is_absent_from_the_clean_environment(clean: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('torch', 'transformers') if u.find_spec(n)])"
    assert run(clean / "python", "-c", code).stdout.strip() == "[]"


def test_core_and_one_benchmark_work_without_torch(clean: Path, tmp_path: Path) -> None:
    loom = clean / "loom"
    listed = run(loom, "list", cwd=tmp_path).stdout
    assert "passkey" in listed and "broken" not in listed
    planned = run(loom, "plan", "passkey", "--model", "toy", "--limit", "4", cwd=tmp_path).stdout
    assert "4 answers from 4 samples" in planned
    done = run(loom, "run", "passkey", "--model", "toy", "--limit", "4", "--out", "run", cwd=tmp_path)
    assert "report:" in done.stdout
    assert len((tmp_path / "run" / "responses.jsonl").read_text("utf-8").splitlines()) == 4
    assert (tmp_path / "run" / "report.txt").read_text("utf-8") in done.stdout


def test_a_missing_server_is_one_clear_message(clean: Path, tmp_path: Path) -> None:
    done = run(clean / "loom", "run", "passkey", "--server", "hf", "--model", "toy", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "unknown server 'hf'" in done.stderr and "Traceback" not in done.stderr
