"""What the small commands import: `loom --help` and `loom list` stay instant because they load no heavy library."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

from loom_core.api import installed

HEAVY = ("torch", "numpy", "transformers", "datasets", "pandas", "scipy")
CODE = """
import json, sys
sys.argv = {argv!r}
from loom_core.cli import main
try:
    main()
except SystemExit as end:
    code = end.code
print(json.dumps({{"code": code, "modules": sorted(sys.modules)}}), file=sys.stderr)
"""


def modules_after(*arguments: str) -> list[str]:
    """The modules that a fresh process has loaded once the command is done."""
    code = CODE.format(argv=["loom", *arguments])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    result = json.loads(done.stderr.splitlines()[-1])
    assert result["code"] == 0, done.stderr
    modules: list[str] = result["modules"]
    return modules


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("run", "--help"),
        ("list",),
        ("list", "--format", "json"),
        ("list", "benchmarks"),
        ("info", "toy"),
    ],
    ids=" ".join,
)
def test_command_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    modules = modules_after(*arguments)
    assert "loom_core.cli" in modules
    assert [name for name in HEAVY if name in modules] == []


def test_list_imports_no_factory() -> None:
    """Registration modules are loaded by `loom list`; what their specs name is not."""
    registered = {point.value.partition(":")[0] for point in importlib.metadata.entry_points(group="loom")}
    packages = {".".join(name.split(".")[:depth]) for name in registered for depth in range(1, name.count(".") + 1)}
    factories = {found.spec.factory.partition(":")[0] for kind in installed().kinds for found in kind}
    loaded = set(modules_after("list"))
    assert registered <= loaded
    assert (factories - registered - packages) & loaded == set()


def test_help_imports_no_plugin_but_those_that_add_commands() -> None:
    """Whose module that names the command is all that is loaded of them."""
    added = {point.value.partition(":")[0] for point in importlib.metadata.entry_points(group="loom.commands")}
    own = {*added, *(name.partition(".")[0] for name in added)}
    modules = modules_after("--help")
    loaded = {name for name in modules if name.startswith("loom_") and name.partition(".")[0] != "loom_core"}
    assert loaded <= own
