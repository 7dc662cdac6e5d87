"""`loom check` names a plugin that imports private modules of core, with file and line, and imports nothing itself."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest
from loom_kit.conformance_imports import CHECK, OWN, check_imports
from loom_kit.rows import Row


def rows(
    site: Path, monkeypatch: pytest.MonkeyPatch, distribution: str = "loom-bench-nosy", **sources: str
) -> list[Row]:
    """The rows of a package of these modules; each raises when it is imported."""
    package = site / "loom_bench_nosy"
    package.mkdir(exist_ok=True)
    for name, text in {"__init__": "", **sources}.items():
        (package / f"{name}.py").write_text(f"{text}\nraise SystemExit('imported')\n", "utf-8")
    monkeypatch.syspath_prepend(str(site))
    found = list(check_imports("loom_bench_nosy", distribution))
    assert "loom_bench_nosy" not in sys.modules
    return found


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("from loom_core.contract.types import Sample", "loom_core.contract.types.Sample"),
        ("import loom_core.run.store", "loom_core.run.store"),
        ("from loom_core import contract", "loom_core.contract"),
        ("from loom_core.api import _HOMES", "loom_core.api._HOMES"),
        ("import loom_core\nloom_core.registry.plugins.installed()", "loom_core.registry"),
        ("def late():\n    from loom_core.cli.exits import say", "loom_core.cli.exits.say"),
        ("if TYPE_CHECKING:\n    from loom_core.run.store import RunFolder", "loom_core.run.store.RunFolder"),
        ("import_module('loom_core.score')", "loom_core.score"),
        ("importlib.import_module('loom_core.score')", "loom_core.score"),
    ],
)
def test_private_imports_are_named(source: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = rows(tmp_path, monkeypatch, inner=source)
    line = len(source.splitlines())
    assert not row.passed and row.check == CHECK == "imports only the public interface"
    assert f"loom_bench_nosy/inner.py:{line} imports {named}" in row.why


@pytest.mark.parametrize(
    "source",
    [
        "from loom_core.api import Sample, hookimpl",
        "from loom_core.api.serving import fit",
        "import loom_core.api.records",
        "import loom_core\nprint(loom_core.__version__)",
        "from loom_core import __version__",
        "from loom_core.api import *",
        "from .contract import types",
        "from loom_rag import Retriever",
        "import_module(name)",
        "text = 'from loom_core.contract import types'",
    ],
)
def test_what_is_public_is_not_blamed(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = rows(tmp_path, monkeypatch, inner=source)
    assert row.passed and row.checked, row.why


def test_many_places_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = rows(tmp_path, monkeypatch, inner="import loom_core.run\n" * 8)
    assert row.why.count("inner.py:") == 5 and "; 3 more: may change" in row.why


def test_what_cannot_be_read_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = rows(tmp_path, monkeypatch, inner="def broken(:")
    assert row.passed and not row.checked and "loom_bench_nosy/inner.py cannot be read" in row.why
    (row,) = check_imports("loom_bench_nobody", "loom-bench-nobody")
    assert not row.checked and "not found" in row.why


def test_looms_own_distributions_are_exempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for distribution in OWN:
        assert rows(tmp_path, monkeypatch, distribution, inner="import loom_core.run") == []


def test_a_single_module_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loom_lonely.py").write_text("import loom_core.run\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    (row,) = check_imports("loom_lonely", "loom-lonely")
    assert "loom_lonely.py:1 imports loom_core.run" in row.why


def test_the_command_says_it(loom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(tmp_path, monkeypatch, plugin="import loom_core.run")
    info = tmp_path / "loom_bench_nosy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: loom-bench-nosy\nVersion: 1\n", "utf-8")
    (info / "entry_points.txt").write_text("[loom]\nnosy = loom_bench_nosy.plugin\n", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = loom("check", "loom-bench-nosy", code=1)
    assert "FAIL loom_bench_nosy: imports only the public interface" in done.out
    assert "loom_bench_nosy/plugin.py:1 imports loom_core.run" in done.out


def test_no_distribution_of_this_repository_is_blamed() -> None:
    points = [p for group in ("loom", "loom.commands") for p in importlib.metadata.entry_points(group=group) if p.dist]
    named = {(p.value.partition(":")[0].partition(".")[0], p.dist.name) for p in points if p.dist}
    found = [row for package, distribution in sorted(named) for row in check_imports(package, distribution)]
    assert found and [(row.subject, row.why) for row in found if not row.passed or not row.checked] == []
