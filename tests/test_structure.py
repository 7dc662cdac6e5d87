"""The house rules that a program can hold: who imports whom, sizes, forbidden constructs, tracked text.

Reads source with `ast`; runs nothing of it.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
SKIPPED = {".git", ".venv", "venv", "build", "dist", "__pycache__", "runs"}

LAYERS: tuple[tuple[str, ...], ...] = (
    ("moved",),
    ("contract",),
    ("registry",),
    ("serving",),
    ("prompting",),
    ("data",),
    ("run",),
    ("score", "doubles"),
    ("pipeline", "elsewhere"),
    ("given", "python"),
    ("api",),
    ("cli",),
    ("__main__",),
)
"""Core's rooms, lowest first: a module imports its own room and lower ones, never in a circle. docs/architecture.md
explains them."""

LARGEST_CORE = 14_700
"""Lines of core. The aim is 6,000: whoever raises this number says why in the commit."""

API = frozenset(("loom_core.api", "loom_core.api.doubles", "loom_core.api.records", "loom_core.api.serving"))
API |= {"loom_core.api.templates"}
"""What a plugin imports of core."""

OWN: dict[str, tuple[str, ...]] = {
    "loom-report": (),
    "loom-lab": ("loom_report",),
    "loom-parity": (),
    "loom-kit": ("loom_report", "loom_parity"),
}
"""loom's own distributions that stand on core's rooms, and which of each other they import. They are released together
with core; everything else keeps to the public interface."""

BASES = ("loom_rag", "loom_bench_files", "loom_parity", "loom_kit", "loom_kv")
"""Bases whose top level any plugin may import, and nothing below it."""

KV_KIT = "loom_kv.testing"
"""What a server that hosts KV-cache methods also imports: it gives the test kit its host."""


def tracked() -> list[Path]:
    """The files of the project: what git tracks or would track; every file where this is no checkout."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    return [p for p in ROOT.rglob("*") if p.is_file() and not SKIPPED & set(p.relative_to(ROOT).parts)]


SOURCES = [path for path in tracked() if path.suffix == ".py"]
CORE = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == "loom_core"]


@functools.cache
def tree(path: Path) -> ast.Module:
    """The parsed source of a file."""
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    """`loom_core/cli/run.py` as `loom_core.cli.run`."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imported(path: Path, *, top_level: bool = False, typing: bool = True) -> Iterator[tuple[str, str, int]]:
    """(module, name, line) of each import in a file; name is empty for `import module`. Relative imports come absolute.

    top_level: only what is imported when the module is. typing: also what only type checkers import.
    """
    package = module_name(path).split(".") if path.is_relative_to(ROOT) else []
    if path.name != "__init__.py":
        package = package[:-1]
    for node in _walk(tree(path), top_level, typing and not top_level):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                yield module, alias.name, node.lineno


def _walk(node: ast.AST, top_level: bool, typing: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if top_level and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if not typing and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _walk(child, top_level, typing)


def where(path: Path, line: int = 0) -> str:
    """A place, for messages."""
    return f"{path.relative_to(ROOT)}" + (f":{line}" if line else "")


# --- imports inside core ---------------------------------------------------------------------------------------------


def core_part(module: str) -> str:
    """The first name below loom_core, which decides the layer; `loom_core` itself for the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "loom_core"


def core_edges() -> Iterator[tuple[str, str, str]]:
    """(importing module, imported module, place) inside core, lazy imports included."""
    names = {module_name(path) for path in CORE}
    for path in CORE:
        for module, name, line in imported(path, typing=False):
            if module.split(".")[0] == "loom_core":
                inner = f"{module}.{name}"
                yield module_name(path), inner if inner in names else module, where(path, line)


def test_every_core_module_has_a_layer() -> None:
    known = {name for names in LAYERS for name in names} | {"loom_core"}
    assert {core_part(module_name(path)) for path in CORE} - known == set(), "give the new room a place in LAYERS"


def test_core_imports_point_downwards() -> None:
    level = {name: i for i, names in enumerate(LAYERS) for name in names} | {"loom_core": 0}
    wrong = [
        f"{place}: {source} imports {target}"
        for source, target, place in core_edges()
        if level[core_part(target)] > level[core_part(source)]
    ]
    assert wrong == []


def test_core_does_not_grow() -> None:
    assert sum(len(path.read_text("utf-8").splitlines()) for path in CORE) <= LARGEST_CORE


def test_core_imports_no_other_distribution_of_loom() -> None:
    for path in CORE:
        for module, _, line in imported(path):
            top = module.split(".")[0]
            assert top == "loom_core" or not top.startswith("loom_"), f"{where(path, line)} imports {module}"


def test_core_has_no_import_circles() -> None:
    assert_no_circles(core_edges())


def assert_no_circles(imports: Iterable[tuple[str, str, str]]) -> None:
    """imports: (importing module, imported module, place). A package may import its own modules."""
    edges: dict[str, set[str]] = {}
    for source, target, _ in imports:
        if target not in (source, "loom_core") and not source.startswith(f"{target}."):
            edges.setdefault(source, set()).add(target)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"circle: {' → '.join([*path, module])}"
        if module not in done:
            for target in sorted(edges.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in sorted(edges):
        visit(module, ())


def test_only_the_front_imports_the_command_line() -> None:
    for source, target, place in core_edges():
        front = core_part(source) in ("cli", "__main__")
        assert core_part(target) != "cli" or front, f"{place} imports the command line"


HEAVY = ("torch", "numpy", "transformers", "datasets", "pyarrow", "huggingface_hub", "rich")


def test_core_imports_neither_torch_nor_numpy_at_import() -> None:
    for path in CORE:
        for module, _, line in imported(path, top_level=True):
            heavy = module.split(".")[0] in HEAVY
            assert not heavy, f"{where(path, line)} imports {module} when it is imported"
        for module, _, line in imported(path):
            assert module.split(".")[0] != "torch", f"{where(path, line)}: core knows no torch"


# --- imports of plugins ----------------------------------------------------------------------------------------------


def package_of(plugin: Path) -> str:
    """`loom-bench-passkey` → `loom_bench_passkey`."""
    return plugin.name.replace("-", "_")


def plugin_sources(plugin: Path) -> list[Path]:
    """The sources of a plugin's package, without its tests."""
    return [path for path in SOURCES if path.is_relative_to(plugin / package_of(plugin))]


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugin_imports_only_what_is_public(plugin: Path) -> None:
    own, server = OWN.get(plugin.name), plugin.name.startswith("loom-server-")
    for path in plugin_sources(plugin):
        for module, name, line in imported(path):
            top, place = module.split(".")[0], where(path, line)
            if top == "loom_core":
                full = f"{module}.{name}"
                assert own is not None or module in API or full in API, f"{place}: {module} is not public"
                assert not name.startswith("_") or name == "__version__", f"{place}: {full} is private"
            elif top.startswith("loom_") and top != package_of(plugin):
                allowed = module in BASES or top in (own or ()) or (server and module == KV_KIT)
                assert allowed, f"{place}: a plugin imports no other plugin, but imports {module}"
                assert not name.startswith("_"), f"{place}: {module}.{name} is private"


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugin_has_no_import_circles(plugin: Path) -> None:
    """Imports for type checkers count: modules that need each other's types are one thing in two files."""
    names = {module_name_of(plugin, path): path for path in plugin_sources(plugin)}
    assert_no_circles(
        (source, inner if (inner := f"{module}.{name}") in names else module, where(path, line))
        for source, path in names.items()
        for module, name, line in imported(path)
        if module.split(".")[0] == package_of(plugin)
    )


def module_name_of(plugin: Path, path: Path) -> str:
    """The name that a plugin's module is imported by."""
    return ".".join(path.relative_to(plugin).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_registration_module_imports_only_core(plugin: Path) -> None:
    points = project(plugin).get("entry-points", {})
    for value in (value for group in points.values() for value in group.values()):
        path = plugin / Path(*value.partition(":")[0].split(".")).with_suffix(".py")
        for module, _, line in imported(path, top_level=True):
            top = module.split(".")[0]
            light = top in ("loom_core", "loom_rag") or top in sys.stdlib_module_names or _light_sibling(plugin, module)
            assert light, f"{where(path, line)}: registration imports {module}"


def _light_sibling(plugin: Path, module: str) -> bool:
    """True if a module of the same plugin itself imports only core and the standard library."""
    path = plugin / Path(*module.split(".")).with_suffix(".py")
    if not path.exists():
        return False
    tops = {name.split(".")[0] for name, _, _ in imported(path, top_level=True)}
    return all(top == "loom_core" or top in sys.stdlib_module_names for top in tops)


# --- dependencies ----------------------------------------------------------------------------------------------------


@functools.cache
def project(folder: Path) -> dict[str, Any]:
    """The [project] table of a distribution."""
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def normal(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(folder: Path, *, extras: bool = True) -> set[str]:
    """The distributions that a project requires."""
    rows = list(project(folder).get("dependencies", []))
    if extras:
        rows += [row for group in project(folder).get("optional-dependencies", {}).values() for row in group]
    return {normal(match[0]) for row in rows if (match := re.match(r"[A-Za-z0-9._-]+", row))}


@functools.cache
def distributions() -> dict[str, set[str]]:
    """Import names to the distributions that bring them."""
    found: dict[str, set[str]] = {}
    for name, owners in importlib.metadata.packages_distributions().items():
        found.setdefault(name, set()).update(normal(owner) for owner in owners)
    for folder in (ROOT, *PLUGINS):
        name = str(project(folder)["name"])
        found.setdefault(name.replace("-", "_"), set()).add(name)
    return found


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda path: path.name)
def test_imports_are_declared_dependencies(folder: Path) -> None:
    sources = CORE if folder == ROOT else plugin_sources(folder)
    own, missing = {"loom_core"} if folder == ROOT else {package_of(folder)}, []
    for path in sources:
        for module, _, line in imported(path):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in own:
                continue
            owners = distributions().get(top, {normal(top)})
            if not owners & declared(folder):
                missing.append(f"{where(path, line)}: {top} (of {' or '.join(sorted(owners))})")
    assert missing == [], f"not among the dependencies of {project(folder)['name']}"


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda path: path.name)
def test_declared_dependencies_are_imported(folder: Path) -> None:
    """A dependency that nothing imports is a burden on users; data and backends are named here with their reason."""
    reasons = {
        "jinja2": "transformers imports it to render chat templates",
        "accelerate": "transformers imports it to place weights",
    }
    used = {
        owner
        for path in (CORE if folder == ROOT else plugin_sources(folder))
        for module, _, _ in imported(path)
        for owner in distributions().get(module.split(".")[0], {normal(module.split(".")[0])})
    }
    unused = declared(folder, extras=False) - used - set(reasons)
    # Another plugin is used by the names it registers: tests/test_plugins_complete.py looks for them.
    plugins = {plugin.name for plugin in PLUGINS}
    assert unused - plugins == set(), "declared but never imported"


# --- sizes and forbidden things --------------------------------------------------------------------------------------

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}


def test_files_and_functions_are_short() -> None:
    found = []
    for path in (path for path in SOURCES if "tests" not in path.parts):
        if (lines := len(path.read_text("utf-8").splitlines())) > 400:
            found.append(f"{where(path)} has {lines} lines")
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    found.append(f"{where(path, node.lineno)}: {node.name} has {length} lines")
    assert found == []


def test_files_are_named_by_what_they_know_and_say_so() -> None:
    for path in SOURCES:
        assert path.name not in ("utils.py", "util.py", "helpers.py", "misc.py", "common.py"), where(path)
        assert ast.get_docstring(tree(path)) or not path.read_text("utf-8").strip(), f"{where(path)} has no docstring"


def test_no_dangerous_constructs() -> None:
    found = []
    for path in SOURCES:
        found += [
            f"{where(path, line)} imports {module}"
            for module, _, line in imported(path)
            if module.split(".")[0] in FORBIDDEN_MODULES
        ]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                if (name := ast.unparse(node.func)) in FORBIDDEN_CALLS:
                    found.append(f"{where(path, node.lineno)} calls {name}")
                found += [
                    f"{where(path, node.lineno)}: shell={ast.unparse(keyword.value)}"
                    for keyword in node.keywords
                    if keyword.arg == "shell" and ast.unparse(keyword.value) != "False"
                ]
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                found.append(f"{where(path, node.lineno)}: bare except")
    assert found == []


def test_remote_code_only_by_the_users_option() -> None:
    """`trust_remote_code=` passes on an option or a parameter of that name; it is never switched on in code."""
    for path in (path for path in SOURCES if "tests" not in path.parts):
        for node in ast.walk(tree(path)):
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                if keyword.arg == "trust_remote_code":
                    passed = ast.unparse(keyword.value)
                    allowed = passed == "False" or re.fullmatch(r"(\w+\.)*trust_remote_code", passed)
                    assert allowed, f"{where(path, keyword.value.lineno)}: trust_remote_code={passed}"


# --- tracked text ----------------------------------------------------------------------------------------------------

MACHINE = re.compile(
    r"(?<![\w.])/(?:work|root|home|opt|srv)/[A-Za-z]"  # folders of one machine
    r"|(?:pypi|pythonhosted|npmjs|conda|anaconda)\.(?:org|com)|/simple\b|--(?:extra-)?index-url|--find-links"
)
TEXTS = {".py", ".md", ".toml", ".txt", ".cfg", ".ini", ".yml", ".yaml", ".sh", ".html", ".jinja", ""}


def test_tracked_files_name_no_machine_and_no_registry() -> None:
    found = []
    for path in tracked():
        if path.suffix not in TEXTS or path == Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
            if match := MACHINE.search(line):
                found.append(f"{where(path, number)}: {match[0]}")
    assert found == []


def test_no_build_output_and_no_foreign_lock_file_is_tracked() -> None:
    names = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "package-lock.json"}
    for path in tracked():
        assert path.name not in names, where(path)
        assert path.suffix not in (".pyc", ".whl", ".log"), where(path)
