"""The examples of docs/plugins.md are installed as they stand and run; the reference is fresh; links lead somewhere."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

from loom_core.api import Job, KVUse, NoOptions, Response, Sample, Score, Timing, installed
from loom_core.contract import hookspecs
from loom_core.contract.options import describe

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "plugins.md"
DOCUMENTS = sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")) + sorted(ROOT.glob("plugins/*/README.md"))
EXAMPLES = ("A metric", "A benchmark", "A benchmark without code", "An acceleration method", "A server")
LONGEST_FILE = 60


@dataclass
class Example:
    """A section of the guide: its files by path, and the commands shown."""

    files: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def read_guide() -> dict[str, Example]:
    """The examples by section."""
    sections = re.split(r"^## ", GUIDE.read_text("utf-8"), flags=re.M)
    found = {}
    for section in sections[1:]:
        title, _, text = section.partition("\n")
        files = re.findall(r"^`([\w./-]+)`\n\n```\w+\n(.*?)^```", text, flags=re.M | re.S)
        shown = re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S)
        if files:
            found[title] = Example(dict(files), [line for block in shown for line in block.splitlines()])
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every example of the guide is installed."""
    sources, folder = tmp_path_factory.mktemp("examples"), tmp_path_factory.mktemp("site")
    for example in read_guide().values():
        for name, text in example.files.items():
            if "/" not in name:
                continue  # a file of its own, which the commands find in their folder
            path = sources / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            if path.suffix == ".py":
                path.with_name("__init__.py").write_text('"""An example."""\n', "utf-8")
    install(folder, *sorted(path for path in sources.iterdir()))
    return folder


def install(site: Path, *sources: Path) -> None:
    """Install distributions into a folder of their own, without dependencies and without a network."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, "--target", str(site), *map(str, sources)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def loom(command: str, site: Path, cwd: Path, *more: Path) -> subprocess.CompletedProcess[str]:
    """A command line as a reader would type it into a shell, with the examples installed."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(map(str, (site, *more))),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=300, cwd=cwd, env=environment, check=False
    )


def test_the_guide_has_an_example_of_each_kind() -> None:
    guide = read_guide()
    assert tuple(guide) == EXAMPLES
    for title, example in guide.items():
        assert example.commands, title
        for name, text in example.files.items():
            assert len(text.splitlines()) <= LONGEST_FILE, f"{title}: {name}"


@pytest.mark.parametrize("title", EXAMPLES)
def test_commands_of_the_guide_work(title: str, site: Path, tmp_path: Path) -> None:
    for name, text in read_guide()[title].files.items():
        if "/" not in name:
            (tmp_path / name).write_text(text, "utf-8")
    for command in read_guide()[title].commands:
        done = loom(command, site, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


def test_examples_are_formatted_and_linted(tmp_path: Path) -> None:
    for example in read_guide().values():
        for name, text in example.files.items():
            if name.endswith(".py"):
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    for check in (["check"], ["format", "--check"]):
        command = [*ruff, *check, "--no-cache", f"--config={ROOT / 'pyproject.toml'}", "."]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout


def test_the_rule_server_scores_as_the_guide_says(site: Path, tmp_path: Path) -> None:
    command = "loom run passkey@words=128,depths=2,repeats=2 --server rule --model commonest --out run"
    assert loom(command, site, tmp_path).returncode == 0
    lines = (tmp_path / "run" / "scores-passkey_exact@1.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["value"] for line in lines] == [1.0] * 4


def test_a_plugin_that_raises_is_listed_as_broken_and_stops_nobody(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "loom-bench-sad"
    (folder / "loom_bench_sad").mkdir(parents=True)
    text = read_guide()["A benchmark"].files["loom-bench-tally/pyproject.toml"]
    (folder / "pyproject.toml").write_text(text.replace("tally", "sad"), "utf-8")
    (folder / "loom_bench_sad" / "__init__.py").write_text("", "utf-8")
    (folder / "loom_bench_sad" / "plugin.py").write_text('raise ImportError("the moon is full")\n', "utf-8")
    broken = tmp_path / "site"
    install(broken, folder)
    listed = loom("loom list --format json", broken, tmp_path, site)
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert listed.returncode == 0
    assert rows["sad"]["status"] == "broken: ImportError: the moon is full"
    assert rows["tally"]["status"] == "ok"
    done = loom("loom run tally@words=20,repeats=1 --model toy", broken, tmp_path, site)
    assert done.returncode == 0, done.stderr
    checked = loom("loom check loom-bench-sad", broken, tmp_path, site)
    assert checked.returncode == 1 and "the moon is full" in checked.stdout + checked.stderr


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (document.parent / name).resolve() if name else document
            assert path.exists(), f"{document.relative_to(ROOT)}: {target}"
            if anchor and path.suffix == ".md":
                assert anchor in anchors(path), f"{document.relative_to(ROOT)}: {target}"


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as they are made from Markdown."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """A link that leads nowhere, a page outside the menu or an anchor that is not there ends the build."""
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed: pip install -r requirements-docs.txt")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ("index", "start/index", "CONTRIBUTING/index", "reference/index", "footguns/index"):
        assert (tmp_path / "site" / f"{page}.html").is_file(), page


def test_links_between_the_site_and_the_repository_are_turned() -> None:
    turned = module_of(ROOT / "docs" / "site_pages.py").turned
    text = "[a](../CONTRIBUTING.md#rules) [b](../perf/engine.py) [c](x.md)\n```\n[d](../LICENSE)\n```\n"
    wanted = "[a](CONTRIBUTING.md#rules) b (`perf/engine.py`) [c](x.md)\n```\n[d](../LICENSE)\n```\n"
    assert turned(text, "docs/data.md") == wanted
    assert turned("[a](docs/data.md) [b](README.md)", "SECURITY.md") == "[a](data.md) [b](start.md)"
    assert turned("[a](../../RELEASING.md)", "docs/decisions/x.md") == "[a](../RELEASING.md)"


def test_the_reference_is_what_the_generator_writes() -> None:
    # In a process of its own: other tests of this one may have changed what is installed or how commands show help.
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"stale: run `python docs/generate.py`\n{done.stdout[-4000:]}{done.stderr[-2000:]}"


def test_the_reference_covers_every_hook_command_and_option() -> None:
    text = (ROOT / "docs" / "reference.md").read_text("utf-8")
    hooks = [name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("loom_")]
    assert [name for name in hooks if f"### `{name}`" not in text] == []
    commands = module_of(ROOT / "docs" / "generate.py").own_commands()
    assert [name for name in commands if f"### `loom {name}`" not in text] == []
    own = module_of(ROOT / "docs" / "generate.py").own_distributions()
    for kind in installed().kinds:
        for found in (item for item in kind if item.distribution in own):
            section = text.split(f"#### `{found.spec.name}`\n", 1)[-1].split("\n#### ", 1)[0]
            for options in ("options", "model_options"):
                for row in describe(getattr(found.spec, options, NoOptions)):
                    assert f"| `{row['name']}` |" in section, f"{found.spec.name}: {row['name']}"


def module_of(path: Path) -> Any:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", [Response, Timing, KVUse, Sample, Job, Score], ids=lambda kind: kind.__name__)
def test_every_stored_field_is_documented(kind: type) -> None:
    text = (ROOT / "docs" / "run-folder.md").read_text("utf-8")
    assert [f.name for f in fields(kind) if f"`{f.name}`" not in text] == []


def test_the_run_folder_is_what_the_page_says(tmp_path: Path) -> None:
    done = loom("loom run passkey@words=32,depths=2,repeats=1 --model toy --out run", tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr
    text = (ROOT / "docs" / "run-folder.md").read_text("utf-8")
    folder = tmp_path / "run"
    for path in folder.iterdir():
        name = "scores-METRIC@VERSION.jsonl" if path.name.startswith("scores-") else path.name
        assert re.search(rf"`{re.escape(name)}[`/]", text), f"{path.name} is not documented"
    record = json.loads((folder / "responses.jsonl").read_text("utf-8").splitlines()[0])
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert [name for name in (*record, *manifest) if f"`{name}`" not in text] == []


def test_commands_of_the_readme_are_understood(tmp_path: Path) -> None:
    """Every `loom run` and `loom plan` shown for one's own model is planned with the embedded one in its place."""
    text = (ROOT / "README.md").read_text("utf-8")
    shown = [line for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S) for line in block.splitlines()]
    assert len(shown) >= 4
    model = ROOT / "plugins" / "loom-model-tiny" / "loom_model_tiny" / "data"
    for command in shown:
        planned = command.replace("loom run", "loom plan").replace("path/to/model", str(model))
        planned = re.sub(r" --out \S+", "", planned).replace("--lengths 4k,16k,32k", "--lengths 1k,2k,4k --limit 6")
        done = loom(planned, tmp_path, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_the_architecture_page_names_every_room_and_only_files_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rooms = {name for names in module_of(ROOT / "tests" / "test_structure.py").LAYERS for name in names}
    present = {name for name in rooms if (ROOT / "loom_core" / name).is_dir() and name != "doubles"}
    assert [name for name in sorted(present) if f"loom_core/{name}/" not in text] == []
    for name in re.findall(r"(?<![\w/])((?:loom_report|loom_core|[a-z]+)/[a-z_/]+\.py)", text):
        package = name.split("/")[0]
        roots = {"loom_report": ROOT / "plugins" / "loom-report", "loom_core": ROOT, "tests": ROOT, "docs": ROOT}
        folder = roots.get(package, CORE)
        assert (folder / name).is_file(), name


CORE = ROOT / "loom_core"
