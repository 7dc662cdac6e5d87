"""Third parties' plugins: found, used, listed; the broken are named with their reason and stop nobody."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loom_core.api import Catalog, MetricSpec, hookimpl

REGISTERS = """
from loom_core.api import MetricSpec, hookimpl
from loom_core.api.doubles import ToyTokenizer

@hookimpl
def loom_metrics():
    return [MetricSpec(name="{metric}", version="{version}", summary="made by {module}", factory="{module}:Gone")]
"""


class Site:
    """A folder on the path into which plugins are put."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, module: str, source: str, *, name: str | None = None, group: str = "loom", point: str = "") -> None:
        """A distribution of one module, with its entry point."""
        self.path.mkdir(exist_ok=True)
        (self.path / f"{module}.py").write_text(source, "utf-8")
        info = self.path / f"{name or module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {(name or module).replace('_', '-')}\nVersion: 1.0\n", "utf-8"
        )
        (info / "entry_points.txt").write_text(f"[{group}]\n{point or module} = {module}\n", "utf-8")

    @property
    def env(self) -> dict[str, str]:
        """An environment in which the plugins are found."""
        return {"PYTHONPATH": os.pathsep.join([str(self.path), os.environ["PYTHONPATH"]])}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty site."""
    return Site(tmp_path / "more")


def rows(loom: Any, *what: str, env: dict[str, str] | None = None) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of `loom list`, by kind and name."""
    found = json.loads(loom("list", *what, "--format", "json", env=env).out)
    return {(row["kind"], row["name"]): row for row in found}


def test_a_third_partys_plugin_is_listed(loom: Any) -> None:
    found = rows(loom)
    assert found["benchmark", "fable"] == {
        "kind": "benchmark",
        "name": "fable",
        "version": "1",
        "status": "ok",
        "summary": "short tales with a number in them",
        "distribution": "loom-bench-fable 0.1.0",
        "parity": "none",
    }
    assert {("server", "double"), ("model", "toy"), ("metric", "fable_moody"), ("augmentation", "fable_cache")} <= set(
        found
    )
    assert {"kind", "name", "version", "status"} <= set.intersection(*(set(row) for row in found.values()))
    assert {kind for kind, _ in rows(loom, "metrics")} == {"metric"}
    assert "fable" in loom("list").out and "short tales" in loom("list", "benchmarks").out


def test_info_describes_a_benchmark_and_its_options(loom: Any) -> None:
    text = loom("info", "fable").out
    assert "tasks: tell, chat" in text and "n=12" in text and "1 to 10000" in text and "questions" in text
    (row,) = json.loads(loom("info", "fable", "--format", "json").out)
    assert {option["name"] for option in row["options"]} >= {"n", "turns", "mood"}


HOOK = "from loom_core.contract.hookspecs import hookimpl\n@hookimpl\ndef "
BROKEN = {
    "raises": ("raise RuntimeError('my CUDA is too old\\nsecond line')", "RuntimeError: my CUDA is too old"),
    "needs": ("import not_installed", "ModuleNotFoundError: No module named 'not_installed'"),
    "syntax": ("def (", "SyntaxError: "),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "hook": (HOOK + "loom_metrics():\n    raise ValueError('no metrics')", "ValueError: no metrics"),
    "spec": (HOOK + "loom_metrics():\n    return ['exact']", "loom_metrics returned 'exact', not a MetricSpec"),
    "number": (HOOK + "loom_metrics():\n    return 3", "TypeError: 'int' object is not iterable"),
    "unknown": (HOOK + "loom_metric():\n    return []", "unknown hook 'loom_metric'"),
    "argument": (
        HOOK + "loom_metrics(x):\n    return []",
        "Plugin 'bad-argument:bad_argument' for hook ",
    ),
}


def test_broken_plugins_are_listed_with_their_reasons_and_stop_nobody(loom: Any, site: Site) -> None:
    for name, (source, _) in BROKEN.items():
        site.add(f"bad_{name}", source)
    site.add("zzz_fine", REGISTERS.format(module="zzz_fine", metric="fine", version="1"))
    found = rows(loom, env=site.env)
    for name, (_, why) in BROKEN.items():
        row = found["broken plugin", f"bad_{name}"]
        assert row["status"].startswith(f"broken: {why}") and "\n" not in row["status"], row
        assert row["distribution"] == f"bad-{name}"
    assert "{'x'} are declared in the hookimpl" in found["broken plugin", "bad_argument"]["status"]
    assert found["metric", "fine"]["status"] == "ok" and ("benchmark", "fable") in found
    assert len([name for kind, name in found if kind == "broken plugin"]) == len(BROKEN)
    loom("run", "fable@n=2:tell", "--model", "toy", env=site.env)
    text = loom("list", env=site.env).out
    assert "bad_raises" in text and "my CUDA is too old" in text


def test_a_hook_that_raises_costs_only_what_it_would_have_registered(loom: Any, site: Site) -> None:
    source = REGISTERS.format(module="half", metric="half", version="1")
    site.add("half", source + "@hookimpl\ndef loom_servers():\n    raise OSError('no device')\n")
    found = rows(loom, env=site.env)
    assert found["metric", "half"]["status"] == "ok"
    assert found["broken plugin", "half"]["status"] == "broken: OSError: no device"


def test_two_plugins_that_claim_one_name_are_told_apart(loom: Any, site: Site) -> None:
    site.add("one", REGISTERS.format(module="one", metric="same", version="1"), point="a")
    site.add("two", REGISTERS.format(module="two", metric="same", version="2"), point="b")
    found = rows(loom, env=site.env)
    assert found["metric", "same"]["distribution"] == "one 1.0"
    assert found["broken plugin", "b"]["status"] == "broken: metric 'same' is already registered by one"


def test_two_distributions_may_call_their_entry_points_alike(loom: Any, site: Site) -> None:
    site.add("one", REGISTERS.format(module="one", metric="first", version="1"), point="plugin")
    site.add("two", REGISTERS.format(module="two", metric="second", version="1"), point="plugin")
    found = rows(loom, env=site.env)
    assert ("metric", "first") in found and ("metric", "second") in found
    assert not [name for kind, name in found if kind == "broken plugin"]


def test_observers_see_the_run_may_take_fewer_arguments_and_may_raise(loom: Any, site: Site) -> None:
    site.add(
        "watcher",
        "import json, pathlib\n"
        "from loom_core.contract.hookspecs import hookimpl\n"
        "@hookimpl\ndef loom_run_started(folder): pathlib.Path('started').write_text(str(folder))\n"
        "@hookimpl\ndef loom_response(record): raise KeyError('observer ' + record['sample'])\n"
        "@hookimpl\ndef loom_run_ended(summary): pathlib.Path('ended').write_text(json.dumps(summary))\n",
    )
    done = loom("run", "fable@n=2:tell", "--model", "toy", env=site.env)
    assert (loom.cwd / "started").read_text() == f"runs/{loom.folder().name}"
    assert json.loads((loom.cwd / "ended").read_text()) == {"planned": 2, "ended": 2, "failed": 0}
    assert "watcher: loom_response raised KeyError: 'observer q0'" in done.err


def test_commands_of_plugins_are_added_and_a_broken_one_is_named(loom: Any, site: Site) -> None:
    site.add(
        "more_commands",
        "from loom_core.api import CommandSpec, hookimpl\nimport click\n"
        "@click.command()\ndef greet():\n    click.echo('hello')\n"
        "@hookimpl\ndef loom_commands():\n"
        "    return [CommandSpec(name='greet', summary='Greets.', factory='more_commands:greet')]\n",
        group="loom.commands",
    )
    site.add(
        "old_commands",
        "import click\nfrom loom_core.api import hookimpl\n@hookimpl\ndef loom_commands(cli):\n"
        "    cli.add_command(click.Command('hail', help='Hails.'))\n",
        group="loom.commands",
    )
    site.add("hidden_commands", "from loom_core.api import hookimpl\n@hookimpl\ndef loom_commands(): ...\n")
    site.add("bad_commands", "raise ImportError('gone')", group="loom.commands")
    done = loom("--help", env=site.env)
    assert "greet" in done.out and "Greets." in done.out and "bad_commands is broken: ImportError: gone" in done.err
    assert "hail" in done.out and "Hails." in done.out and loom("hail", env=site.env).code == 0
    assert loom("greet", env=site.env).out == "hello\n"
    rows = json.loads(loom("list", "--format", "json", env=site.env).out)
    (row,) = [row for row in rows if row["name"] == "hidden_commands"]
    assert "entry-point group 'loom.commands'" in row["status"]


@pytest.mark.parametrize(("asked", "fits"), [("<0.1", False), (">=2,<3", False), (">=0.1,<9", True), ("", True)])
def test_a_plugin_for_another_version_of_core_names_its_range(loom: Any, site: Site, asked: str, fits: bool) -> None:
    site.add("ages", REGISTERS.format(module="ages", metric="aged", version="1"))
    with (site.path / "ages-1.0.dist-info" / "METADATA").open("a", encoding="utf-8") as file:
        file.write(f"Requires-Dist: loom-core{asked}\nRequires-Dist: click\n")
    found = rows(loom, env=site.env)
    assert (("metric", "aged") in found) == fits
    if not fits:
        assert f"asks for loom-core{asked}, and this is" in found["broken plugin", "ages"]["status"]


def test_tracing_shows_every_hook_call(loom: Any) -> None:
    traced = loom("list", env={"LOOM_TRACE_PLUGINS": "1"}).err
    assert "loom_benchmarks" in traced and "loom_augmentations" in traced
    assert loom("list").err == ""


def test_a_factory_that_cannot_be_imported_names_its_distribution(loom: Any, site: Site) -> None:
    site.add("ghost", REGISTERS.format(module="ghost", metric="ghost", version="1"))
    source = (
        "from loom_core.contract.hookspecs import hookimpl\nfrom loom_core.contract.specs import BenchmarkSpec\n"
        "@hookimpl\ndef loom_benchmarks():\n"
        "    return [BenchmarkSpec(name='haunt', version='1', summary='', factory='haunted:Gone', tasks=('t',))]\n"
    )
    site.add("haunted", source)
    done = loom("run", "haunt", "--model", "toy", env=site.env, code=1)
    assert "'haunt' cannot be loaded" in done.err and "haunted 1.0, haunted:Gone" in done.err
    assert "AttributeError" in done.err and "pip install --upgrade haunted" in done.err


def test_check_passes_a_good_plugin_and_fails_a_bad_one(loom: Any, site: Site) -> None:
    good = loom("check", "fable")
    assert "all checks passed" in good.out or "no check failed" in good.out
    mixed = loom("check", "loom-bench-fable", code=1)
    failed = {line.split(":")[0] for line in mixed.out.splitlines() if line.startswith("FAIL")}
    broken = {"FAIL fable_leak", "FAIL fable_meddle", "FAIL fable_moody", "FAIL fable_stuck"}
    assert failed == broken, "those that are broken on purpose, and nothing else"
    assert "changes more than the context" in mixed.out
    assert "no installed server that can run it has a kit" in mixed.out
    named = loom("check", "fable_cache")
    assert "fable_cache: declares its source" in named.out and "fable_head" not in named.out
    site.add(
        "sloppy",
        "import numpy\n" + REGISTERS.format(module="sloppy", metric="sloppy", version="1"),
    )
    bad = loom("check", "sloppy", env=site.env, code=1)
    assert "imports numpy" in bad.out and "factory can be imported" in bad.out and "checks failed" in bad.out
    near = loom("check", "loom-bench-fabel", code=2)
    assert "no plugin is registered by 'loom-bench-fabel'" in near.err and "did you mean loom-bench-fable" in near.err


def test_a_plugin_that_pip_installs_is_found_and_runs(loom: Any, tmp_path: Path) -> None:
    if not all(map(importlib.util.find_spec, ("pip", "flit_core"))):
        pytest.skip("pip and flit_core build the wheel")
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(Path(__file__).parent / "third_party" / "loom_bench_fable", source / "loom_bench_fable")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["flit_core >=3.11,<5"]\nbuild-backend = "flit_core.buildapi"\n'
        '[project]\nname = "loom-bench-fable"\nversion = "7.0"\ndescription = "tales"\n'
        'dependencies = ["loom-core"]\n[project.entry-points.loom]\nfable = "loom_bench_fable"\n',
        "utf-8",
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True, timeout=120)
    env = {"PYTHONPATH": os.pathsep.join([str(target), os.environ["PYTHONPATH"]])}
    assert rows(loom, env=env)["benchmark", "fable"]["distribution"] == "loom-bench-fable 7.0"
    loom("run", "fable@n=2:tell", "--model", "toy", env=env)
    manifest = json.loads((loom.folder() / "manifest.json").read_text("utf-8"))
    assert manifest["versions"]["loom-bench-fable"] == "7.0"


def test_two_run_reports_are_refused_by_name_and_one_takes_the_place_of_the_plain_one(loom: Any, site: Site) -> None:
    source = """
from loom_core.api import RunReportSpec, hookimpl

@hookimpl
def loom_run_reports():
    return [RunReportSpec(name="{name}", version="1", summary="mine", factory="{module}:Mine")]

class Mine:
    def write(self, folder):
        return {{"tasks": []}}
    def show(self, report):
        return ["mine alone"]
    def closing(self, folder, report):
        return ["closed"]
"""
    site.add("myreport", source.format(name="mine", module="myreport"))
    done = loom("run", "fable@n=1:tell", "--model", "toy", env=site.env, code=2)
    assert "two run reports are installed" in done.err and "myreport" in done.err and "loom-report" in done.err
    assert not (loom.cwd / "runs").exists(), "said before anything is asked"
    site.add("again", source.format(name="report", module="again"))
    taken = [row for (kind, _), row in rows(loom, env=site.env).items() if kind == "broken plugin"]
    assert ["already registered by" in row["status"] for row in taken] == [True], taken


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("fine", "1\ud800", "version: '1\\ud800' does not print"),
        ("fine", "1\x1b[2J", "does not print"),
        ("fi\ud800ne", "1", "name: "),
        ("fine", "1/2", "version: '1/2' cannot be part of a file's name"),
        ("../fine", "1", "name: '../fine' cannot be part of a file's name"),
        ("fine", "1" * 300, "version: "),
    ],
)
def test_a_name_that_no_file_can_have_is_refused_when_it_is_registered(name: str, version: str, said: str) -> None:
    catalog = Catalog()

    class Plugin:
        @hookimpl
        def loom_metrics(self) -> list[MetricSpec]:
            return [MetricSpec(name=name, version=version, summary="odd", factory="odd:Odd")]

    catalog.register(Plugin(), "odd", "loom-odd", "1")
    (broken,) = catalog.broken
    assert said in broken.why and name not in catalog.metrics
