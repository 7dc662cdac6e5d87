"""Builds the wheels of all distributions of this repository, checks each, and prints a table of what was found.

    python release/build.py [NAME…] [--out FOLDER] [--no-install]

Checked are the contents (the package, its metadata and nothing else), the metadata against pyproject.toml, and, in a
fresh environment for each, that it installs alone with the distributions of loom it requires and that everything it
registers loads. Such an environment holds what the metadata declares and no more: third-party packages are linked into
it from the environment that runs this. Where one is not at hand, the row says so and nothing is downloaded. Exit code
1: a fault.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LICENCE = "Apache-2.0"
LARGEST = 20 * 2**20
"""Bytes of a wheel; the largest, of the embedded model, has 8 MB."""
CLEAN = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
LOAD = """
import importlib.metadata as m, json, sys
from loom_core.registry.plugins import load_all
from loom_core.registry.commands import installed_commands
from loom_core.cli.commands import own_commands
name = sys.argv[1]
faults, points = [], [p for p in m.distribution(name).entry_points if p.group != "console_scripts"]
for point in points:
    try:
        point.load()
    except Exception as error:
        faults.append(f"{point.group} {point.name}: {type(error).__name__}: {error}")
catalog = load_all()
faults += [f"listed as broken: {b}" for b in catalog.broken]
commands = installed_commands(own_commands(), lambda command, why: faults.append(f"{command}: {why}"))
made = [c for c in commands.values() if c.distribution == name]
specs = [item for kind in catalog.kinds for item in kind if item.distribution == name]
print(json.dumps({"faults": faults, "n": len(specs) + len(made), "points": len(points)}))
"""


@dataclass
class Row:
    """What was found of one wheel. faults: what is wrong. away: declared packages that are not at hand here.
    remarks: what packages of others lack here, which is no fault of the wheel.
    """

    name: str
    wheel: Path
    n_files: int = 0
    loaded: str = ""
    faults: list[str] = field(default_factory=list)
    away: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def folders() -> dict[str, Path]:
    """The folder of each distribution by its name."""
    found = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
    return {str(project(folder)["name"]): folder for folder in found}


def project(folder: Path) -> dict[str, Any]:
    """The [project] table of a distribution."""
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def build(chosen: Sequence[Path], out: Path) -> dict[str, Path]:
    """The wheels of the chosen folders, built without a network, by the name of the distribution."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = _run([*pip, "--wheel-dir", str(out), *map(str, chosen)])
    if done.returncode:
        raise SystemExit(
            f"building the wheels failed\n  next: pip install -r requirements-dev.txt\n{done.stderr[-3000:]}"
        )
    return {canonicalize_name(path.name.partition("-")[0]): path for path in sorted(out.glob("*.whl"))}


def _run(command: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=cwd, env=CLEAN, check=False)


# --- what a wheel holds ----------------------------------------------------------------------------------------------


def content_faults(folder: Path, wheel: Path) -> Iterator[str]:
    """What is wrong with the files and the metadata of a wheel, beside the pyproject.toml that it was built from."""
    table = project(folder)
    package = table["name"].replace("-", "_")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        text = opened.read(metadata).decode("utf-8")
        if damaged := opened.testzip():
            yield f"{damaged} is damaged"
    if strange := {name.partition("/")[0] for name in names} - {package, metadata.partition("/")[0]}:
        yield f"holds {', '.join(sorted(strange))} beside the package"
    if f"{package}/__init__.py" not in names or f"{package}/py.typed" not in names:
        yield f"{package} lacks __init__.py or py.typed"
    if left := [name for name in names if name.startswith(f"{package}/tests/") or name.endswith((".pyc", ".log"))]:
        yield f"holds {left[0]}, which is not for users"
    if any(name.endswith("entry_points.txt") for name in names) != bool(
        table.get("entry-points") or table.get("scripts")
    ):
        yield "its entry points are not those of pyproject.toml"
    if wheel.stat().st_size > LARGEST:
        yield f"has {wheel.stat().st_size / 2**20:.0f} MiB"
    yield from _metadata_faults(table, text)


def _metadata_faults(table: Mapping[str, Any], text: str) -> Iterator[str]:
    heads, _, body = text.partition("\n\n")
    wanted = {"Name": table["name"], "Version": table["version"], "Summary": table["description"]}
    wanted |= {"Requires-Python": table["requires-python"], "License-Expression": LICENCE}
    rows = [line.partition(": ")[::2] for line in heads.splitlines()]
    said = dict(rows)
    yield from (
        f"{name} is {said.get(name)!r}, not {value!r}" for name, value in wanted.items() if said.get(name) != value
    )
    required = [value for name, value in rows if name == "Requires-Dist"]
    if len([row for row in required if "extra ==" not in row]) != len(table["dependencies"]):
        yield "its dependencies are not those of pyproject.toml"
    if not body.strip():
        yield "has no description: pyproject.toml names no readme"


# --- alone in a fresh environment ------------------------------------------------------------------------------------


def required(wheel: Path) -> list[Requirement]:
    """What a wheel requires without extras, on this machine."""
    with zipfile.ZipFile(wheel) as opened:
        metadata = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        text = opened.read(metadata).decode("utf-8").partition("\n\n")[0]
    rows = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("Requires-Dist: ")]
    return _without_extras(rows)


def _without_extras(rows: Sequence[str], extras: frozenset[str] = frozenset()) -> list[Requirement]:
    found = [Requirement(row) for row in rows]
    return [r for r in found if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in ("", *extras))]


def needs(
    name: str, wheels: Mapping[str, Path]
) -> tuple[list[str], dict[str, importlib.metadata.Distribution], list[str]]:
    """The distributions of loom that one stands on, itself included; those of others; those that are not at hand."""
    own: list[str] = []
    others: dict[str, importlib.metadata.Distribution] = {}
    away: list[str] = []
    waiting: list[Requirement] = [Requirement("loom-core"), Requirement(name)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (key, extras) in seen:
            continue
        seen.add((key, extras))
        if key in wheels:
            own.append(key)
            waiting += required(wheels[key])
            continue
        try:
            found = importlib.metadata.distribution(key)
        except importlib.metadata.PackageNotFoundError:
            away.append(str(requirement))
            continue
        others[key] = found
        waiting += _without_extras(found.requires or [], extras)
    return sorted(set(own)), others, sorted(away)


def _link(found: importlib.metadata.Distribution, site: Path) -> None:
    """Put another project's installed files into an environment, without copying them."""
    tops = {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}
    for top in sorted(tops):
        target = site / top
        if not target.exists():
            target.symlink_to(Path(str(found.locate_file(top))).resolve())


def install(row: Row, wheels: Mapping[str, Path], work: Path) -> None:
    """Install a wheel with what it requires into an environment of its own, and load everything that it registers."""
    own, others, row.away = needs(row.name, wheels)
    if row.away:
        return
    place = work / row.name
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    site = next(place.glob("lib/python*/site-packages"))
    for found in others.values():
        _link(found, site)
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    quiet = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    done = _run([*pip, *quiet, *(str(wheels[name]) for name in own)])
    if done.returncode:
        row.faults.append((done.stderr or done.stdout).strip().splitlines()[0])
        return
    for line in _run([*pip, "check"]).stdout.splitlines():
        if "No broken" not in line:
            (row.faults if line.startswith("loom-") else row.remarks).append(line)
    done = _run([str(python), "-I", "-c", LOAD, row.name], work)
    if done.returncode:
        row.faults.append((done.stderr.strip().splitlines() or ["loading ended without a word"])[-1])
        return
    said = _json(done.stdout)
    row.faults += said["faults"]
    row.loaded = str(said["n"]) if said["points"] else "import"
    if not said["points"]:
        done = _run([str(python), "-I", "-c", f"import {row.name.replace('-', '_')}"], work)
        row.faults += [done.stderr.strip().splitlines()[-1]] if done.returncode else []


def _json(text: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return said


# --- the table -------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """A row for each wheel."""
    heads = ("distribution", "version", "KiB", "files", "registers", "outcome")
    cells = [heads]
    for row in rows:
        fine = f"not at hand: {', '.join(row.away)}" if row.away else "ok"
        outcome = "; ".join(row.faults) or fine
        size = f"{row.wheel.stat().st_size / 1024:,.0f}"
        cells.append((row.name, row.wheel.name.split("-")[1], size, str(row.n_files), row.loaded or "-", outcome))
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, check, print. Exit code 1 where a wheel has a fault."""
    parser = argparse.ArgumentParser(description="Build and check the wheels of this repository's distributions.")
    parser.add_argument(
        "names", nargs="*", help="distributions; without any, all. Others that they require are built too"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the wheels  [default: dist]")
    parser.add_argument("--no-install", action="store_true", help="check contents and metadata only")
    given = parser.parse_args(arguments)
    known = folders()
    if unknown := sorted(set(given.names) - set(known)):
        parser.error(f"no distribution {', '.join(unknown)} here; there are {', '.join(known)}")
    wanted = given.names or list(known)
    given.out.mkdir(parents=True, exist_ok=True)
    for old in given.out.glob("loom_*.whl"):
        old.unlink()
    wheels = build([known[name] for name in _closure(wanted, known)], given.out)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for name in wanted:
            row = Row(name, wheels[name], faults=list(content_faults(known[name], wheels[name])))
            with zipfile.ZipFile(row.wheel) as opened:
                row.n_files = len(opened.namelist())
            if not given.no_install:
                install(row, wheels, Path(work))
            rows.append(row)
            print(f"{name}: {'; '.join(row.faults) or 'checked'}", file=sys.stderr)
    print(table(rows))
    for remark in sorted({remark for row in rows for remark in row.remarks}):
        print(f"of this environment, no fault of a wheel: {remark}")
    n = sum(bool(row.faults) for row in rows)
    away = sum(bool(row.away) for row in rows)
    print(f"{len(rows)} wheels in {given.out}: {n} with a fault, {away} not installed here for want of a package")
    return int(n > 0)


def _closure(names: Sequence[str], known: Mapping[str, Path]) -> list[str]:
    """The distributions of this repository that some stand on, with themselves and core."""
    found, waiting = [], ["loom-core", *names]
    while waiting:
        name = waiting.pop()
        if name in known and name not in found:
            found.append(name)
            waiting += [
                re.split(r"[^\w.-]", row, maxsplit=1)[0] for row in project(known[name]).get("dependencies", [])
            ]
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main())
