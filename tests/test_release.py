"""The scripts of a release: wheels that are built and checked, and fragments that are gathered into the changelog."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = "# Changelog\n\n## 0.2.0, not released\n\nWords.\n\n- older\n\n## 0.1.0, long ago\n\n- first\n"


def script(name: str) -> Any:
    """A script of release/ as a module."""
    spec = importlib.util.spec_from_file_location(f"release_{name}", ROOT / "release" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The script on two distributions, one of which has nothing to register, and the folder of wheels."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, str(ROOT / "release" / "build.py"), "loom-rag", "loom-bench-passkey", "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False), out


def test_two_distributions_are_built_checked_and_told(
    built: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, out = built
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()[1:3]}
    assert set(rows) == {"loom-rag", "loom-bench-passkey"}
    assert rows["loom-rag"][-2:] == ["import", "ok"] and rows["loom-bench-passkey"][-1] == "ok"
    assert "2 wheels" in done.stdout and "0 with a fault, 0 not installed" in done.stdout
    assert len(list(out.glob("loom_core-*.whl"))) == 1, "core is built for the environments of the others"


def test_a_wheel_with_faults_is_told_each(built: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path) -> None:
    (good,) = built[1].glob("loom_bench_passkey-*.whl")
    bad = tmp_path / good.name
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            text = source.read(name)
            if name.endswith("METADATA"):
                text = text.replace(b"Apache-2.0", b"MIT").replace(b"Requires-Dist", b"X-Requires-Dist")
            if not name.endswith(("py.typed", "entry_points.txt")):
                target.writestr(name, text)
        target.writestr("stray/file.py", "")
    told = "\n".join(script("build").content_faults(ROOT / "plugins" / "loom-bench-passkey", bad))
    for fault in (
        "holds stray",
        "py.typed",
        "entry points are not",
        "License-Expression is 'MIT'",
        "dependencies are not",
    ):
        assert fault in told, told


def test_a_dependency_that_is_not_at_hand_is_named_and_no_fault(
    built: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path
) -> None:
    builder = script("build")
    wheels = {path.name.partition("-")[0].replace("_", "-"): path for path in built[1].glob("*.whl")}
    odd = tmp_path / "loom_odd-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(odd, "w") as wheel:
        wheel.writestr("loom_odd-0.1.0.dist-info/METADATA", "Name: loom-odd\nRequires-Dist: no-such-thing-9>=1\n\n")
    row = builder.Row("loom-odd", odd)
    builder.install(row, {**wheels, "loom-odd": odd}, tmp_path)
    assert row.away == ["no-such-thing-9>=1"] and row.faults == []
    assert "not at hand: no-such-thing-9>=1" in builder.table([row])


def test_fragments_are_gathered_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changelog = script("changelog")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, "utf-8")
    shutil.copytree(ROOT / "changelog", tmp_path / "changelog", ignore=shutil.ignore_patterns("[a-z0-9]*.md"))
    (tmp_path / "changelog" / "12.md").write_text("Something is\nnew.\n", "utf-8")
    assert changelog.main(["--check"], tmp_path) == 0
    assert (tmp_path / "CHANGELOG.md").read_text("utf-8") == CHANGELOG
    assert changelog.main(["--release", "0.2.0", "2030-01-01"], tmp_path) == 0
    wanted = CHANGELOG.replace("- older", "- Something is\n  new.\n- older").replace("not released", "2030-01-01")
    assert (tmp_path / "CHANGELOG.md").read_text("utf-8") == wanted
    assert [path.name for path in (tmp_path / "changelog").iterdir()] == ["README.md"]
    assert changelog.main([], tmp_path) == 1
    assert "no heading" in capsys.readouterr().err


def test_a_fragment_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changelog = script("changelog")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, "utf-8")
    (tmp_path / "changelog").mkdir()
    for text in ("", "- a list.", "# Heading.", "no full stop", "x" * 200 + "."):
        (tmp_path / "changelog" / "a.md").write_text(text, "utf-8")
        assert changelog.main([], tmp_path) == 1
        assert "a.md:" in capsys.readouterr().err


def test_the_fragments_of_this_repository_are_well_made() -> None:
    assert script("changelog").main(["--check"]) == 0
