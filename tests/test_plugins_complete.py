"""What each plugin of this repository must bring, and what set-up and README promise about all of them."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from loom_core.api import AugmentationSpec, BenchmarkSpec, Catalog, ModelSpec, ServerSpec, SuiteSpec, installed, resolve
from loom_core.cli import cli
from loom_core.cli.commands import own_commands
from loom_core.registry.commands import installed_commands

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = sorted(path for path in (ROOT / "plugins").iterdir() if path.is_dir() and path.name.startswith("loom-"))
KINDS = ("bench", "server", "accel", "metric", "model")
OWN = ("loom-report", "loom-lab", "loom-kit", "loom-parity", "loom-rag", "loom-kv")
"""Distributions that are no plugin of one kind: parts of loom, and bases of plugins."""
VENV = "python3 -m venv .venv && .venv/bin/"
RUN_COMMAND = f"{VENV}pip install -r requirements.txt && .venv/bin/loom run"
CAPABILITIES = frozenset(
    ("local_model", "token_ids", "prefix_cache", "logprobs", "stream", "device", "context_only", "given_answers")
)
"""What servers may promise and augmentations may require. A new word is added here with the first that uses it."""
TEST_COMMAND = f"{VENV}pip install -r requirements-dev.txt && .venv/bin/pytest -n auto --dist loadfile"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return installed()


def toml(plugin: Path) -> dict[str, Any]:
    """A plugin's pyproject.toml."""
    return tomllib.loads((plugin / "pyproject.toml").read_text("utf-8"))


def specs_of(plugin: Path, catalog: Catalog) -> list[Any]:
    """Everything that a plugin registers."""
    return [found.spec for kind in catalog.kinds for found in kind if found.distribution == plugin.name]


def ids(path: Path) -> str:
    """A plugin by its folder's name."""
    return path.name


@pytest.mark.parametrize("plugin", PLUGINS, ids=ids)
def test_plugin_is_a_distribution_of_its_own(plugin: Path) -> None:
    table, module = toml(plugin), plugin.name.replace("-", "_")
    project = table["project"]
    assert plugin.name in OWN or re.fullmatch(rf"loom-({'|'.join(KINDS)})-[a-z0-9-]+", plugin.name)
    assert project["name"] == plugin.name
    assert project["license"] == "Apache-2.0"
    assert project["readme"] == "README.md"
    assert project["requires-python"] == ">=3.11"
    assert project["description"].endswith(".")
    assert any(re.match(r"loom-core\b", row) for row in project["dependencies"])
    points = {group: list(named.values()) for group, named in project.get("entry-points", {}).items()}
    expected = {"loom": [f"{module}.plugin"], "loom.commands": [f"{module}.commands"]}
    assert points == {group: expected[group] for group in points}
    assert points or plugin.name in OWN
    assert table["build-system"]["build-backend"] == "flit_core.buildapi"
    assert table["tool"]["flit"]["module"]["name"] == module
    assert (plugin / module / "__init__.py").is_file()
    assert (plugin / module / "py.typed").is_file()


@pytest.mark.parametrize("plugin", PLUGINS, ids=ids)
def test_plugin_has_a_readme_and_tests(plugin: Path) -> None:
    text = (plugin / "README.md").read_text("utf-8")
    assert text.startswith(f"# {plugin.name}\n")
    assert len(text.split()) >= 60, "a README says what it is, how to use it, what was checked and what is not known"
    assert list((plugin / "tests").glob("test_*.py")), "a plugin brings its tests"
    assert not (plugin / "tests" / "__init__.py").exists()


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in [*ROOT.glob("tests/test_*.py"), *ROOT.glob("plugins/*/tests/test_*.py")]]
    assert len(set(names)) == len(names)


def broken(name: str, why: str) -> None:
    """No command of this repository is broken."""
    raise AssertionError(f"{name}: {why}")


@pytest.mark.parametrize("plugin", PLUGINS, ids=ids)
def test_plugin_registers_something_that_works(plugin: Path, catalog: Catalog) -> None:
    assert [row for row in catalog.broken if row.distribution == plugin.name] == []
    specs = specs_of(plugin, catalog)
    added = [
        name
        for name, command in installed_commands(own_commands(), broken).items()
        if command.distribution == plugin.name
    ]
    for name in added:
        assert cli.get_command(click.Context(cli), name) is not None, f"pip install -e plugins/{plugin.name}"
    hooks = any(found.startswith(f"{plugin.name}:") for found, _ in catalog.manager.list_name_plugin())
    assert specs or added or hooks or not toml(plugin)["project"].get("entry-points"), f"pip install -e {plugin}"
    for spec in specs:
        catalog.load(next(found for kind in catalog.kinds for found in kind if found.spec is spec))
        assert spec.summary and not spec.summary.endswith("."), f"{spec.name}: a phrase without a full stop"
        assert len(spec.summary) <= 120, f"{spec.name}: the summary must fit a line of loom list"
        assert spec.version, spec.name


@pytest.mark.parametrize("plugin", PLUGINS, ids=ids)
def test_every_option_is_explained(plugin: Path, catalog: Catalog) -> None:
    for spec in specs_of(plugin, catalog):
        for field in fields(spec):
            kind = getattr(spec, field.name)
            for option in fields(kind) if isinstance(kind, type) and is_dataclass(kind) else ():
                assert option.metadata.get("help"), f"{spec.name}: option {option.name} has no help text"


@pytest.mark.parametrize("plugin", PLUGINS, ids=ids)
def test_specs_declare_what_their_kind_needs(plugin: Path, catalog: Catalog) -> None:
    for spec in specs_of(plugin, catalog):
        if isinstance(spec, BenchmarkSpec):
            assert spec.tasks and spec.capability and spec.licence, spec.name
        if isinstance(spec, (ModelSpec, SuiteSpec)):
            assert Path(resolve(spec.factory)()).exists(), f"{spec.name}: {spec.factory}"
        if oracle := getattr(spec, "oracle", ""):
            assert callable(resolve(oracle)), f"{spec.name}: {oracle}"
        if isinstance(spec, ServerSpec):
            assert spec.capabilities <= CAPABILITIES, f"{spec.name}: {spec.capabilities - CAPABILITIES} is not known"
        if isinstance(spec, AugmentationSpec):
            able = [item.spec.name for item in catalog.servers if spec.requires <= item.spec.capabilities]
            assert able, f"{spec.name}: no server of this repository can do it"
            assert spec.source, f"{spec.name} names no source of its definition"
            assert (spec.kind != "model") or "local_model" in spec.requires, spec.name


@pytest.mark.parametrize("plugin", PLUGINS, ids=ids)
def test_a_required_plugin_is_used_by_name(plugin: Path, catalog: Catalog) -> None:
    """A plugin that requires another one without importing it names something that the other registers."""
    texts = [path.read_text("utf-8") for path in (plugin / plugin.name.replace("-", "_")).rglob("*.py")]
    required = {re.split(r"[^A-Za-z0-9-]", row)[0] for row in toml(plugin)["project"]["dependencies"]}
    for other in (folder for folder in PLUGINS if folder.name in required):
        names = [spec.name for spec in specs_of(other, catalog)]
        imported = any(other.name.replace("-", "_") in text for text in texts)
        named = any(f'"{name}"' in text for name in names for text in texts)
        assert imported or named, f"{plugin.name} requires {other.name} and uses nothing of it"


def test_every_plugin_is_in_the_requirements() -> None:
    assert requirements("requirements-all.txt") == [".", *(f"plugins/{plugin.name}" for plugin in PLUGINS)]


def test_the_quickstart_installs_what_it_needs_and_no_more() -> None:
    """Whatever an installed distribution requires of this repository is installed too: none of it is on an index."""
    wanted = requirements("requirements.txt")
    assert wanted == sorted(wanted) and len(wanted) < 12
    for folder in wanted:
        rows = tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
        required = {re.split(r"[^A-Za-z0-9-]", row)[0] for row in rows}
        own = {f"plugins/{name}" for name in required if (ROOT / "plugins" / name).is_dir()}
        assert own <= set(wanted), f"{folder} requires {sorted(own - set(wanted))}"


def requirements(name: str) -> list[str]:
    """The folders that a file of requirements installs; it holds nothing else but the constraints."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    assert [line for line in lines if not line.startswith("-e ")] == ["-c constraints.txt"]
    return [line.removeprefix("-e ") for line in lines if line.startswith("-e ")]


def test_torch_is_pinned_once_and_without_a_local_version() -> None:
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert [line for line in pins if line and not line.startswith("#")] == ["torch==2.13.0", "transformers==5.23.0"]
    for folder in (ROOT, *PLUGINS):
        for row in toml(folder)["project"]["dependencies"]:
            if re.match(r"(torch|transformers|numpy)\b", row):
                assert "==" not in row, f"{folder.name} pins {row}: its exact version belongs to constraints.txt"


def test_readme_names_the_two_commands_and_ci_runs_the_second() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"\n{RUN_COMMAND}\n" in readme
    assert f"\n{TEST_COMMAND}\n" in readme
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "requirements-dev.txt" in ci and re.search(r"^phase tests pytest\b", ci, re.M)


def test_readme_lists_every_plugin() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    missing = [plugin.name for plugin in PLUGINS if plugin.name not in readme]
    assert missing == []


def required(folder: Path) -> set[str]:
    """The distributions of this repository that one requires, directly or not."""
    rows = toml(folder)["project"]["dependencies"]
    own = {name for row in rows if (ROOT / "plugins" / (name := re.split(r"[^A-Za-z0-9-]", row)[0])).is_dir()}
    return own | {deeper for name in own for deeper in required(ROOT / "plugins" / name)}


def test_what_readmes_tell_to_install_brings_all_that_it_requires() -> None:
    """None of this repository is on an index: a line that leaves a base out ends in an error of pip."""
    lines = 0
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*/README.md")]:
        for line in re.findall(r"^(?:\$ )?pip install (?:-c \S+ )?((?:\./\S*\s*)+)$", path.read_text("utf-8"), re.M):
            named = {name for name in re.findall(r"plugins/([\w-]+)", line) if (ROOT / "plugins" / name).is_dir()}
            missing = {base for name in named for base in required(ROOT / "plugins" / name)} - named
            assert not missing, f"{path.relative_to(ROOT)}: {line.strip()} lacks {sorted(missing)}"
            lines += 1
    assert lines > 20
