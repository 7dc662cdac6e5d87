"""Where workers run: how many, on which devices, under which Python. Checks another environment before it is used.

Knows processes and installed distributions; no model. Devices are numbers as the CUDA and HIP runtimes count them: each
worker sees its own group only, and numbers it from 0.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loom_core.contract.errors import UsageError
from loom_core.contract.types import Json
from loom_core.registry.plugins import Found
from loom_core.run.config import RunConfig
from loom_core.run.manifest import versions
from loom_core.run.selection import Selection

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
PROBE = """
import importlib.metadata as m, json, sys
found = {d.metadata["Name"].lower(): d.version for d in m.distributions() if d.metadata["Name"]}
print(json.dumps({"python": sys.version.split()[0], "versions": found}))
"""
PROBE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the workers of a run go. python: the interpreter. groups: device groups, one a worker, in turns."""

    python: str
    workers: int
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def own(self) -> bool:
        """True where workers run under loom's own interpreter."""
        return self.python == sys.executable

    def environment(self, number: int, workers: int) -> dict[str, str]:
        """What worker `number` (from 1, of `workers`) gets beside loom's own environment."""
        threads = str(max(1, (os.cpu_count() or 1) // workers))
        given = {"LOOM_THREADS": threads}
        if self.groups:
            given |= dict.fromkeys(VISIBLE, ",".join(self.groups[(number - 1) % len(self.groups)]))
        return given


def place(config: RunConfig) -> Placement:
    """The placement that a config asks for: a worker for each device group, where their number is not said."""
    groups = tuple(tuple(group.split("+")) for group in config.devices)
    workers = len(groups) if groups and not config.origins.get("workers") else config.workers
    return Placement(interpreter(config.python), workers, groups)


def interpreter(python: str | None) -> str:
    """The path of a Python; a folder means the virtual environment in it. Raises UsageError where there is none."""
    if python is None:
        return sys.executable
    path = Path(python).expanduser()
    candidates = [path / "bin" / "python", path / "Scripts" / "python.exe"] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            # Not resolved: a virtual environment is told by the place of its link.
            return str(candidate.absolute())
    if (found := shutil.which(python)) is not None:
        return found
    raise UsageError("no Python found to run the workers with", where=f"--python {python}", hint="name its interpreter")


def check(selection: Selection, placement: Placement) -> dict[str, Json] | None:
    """What another environment has installed; None for loom's own.

    Raises UsageError where loom or a plugin of this run is missing there, or has another version: the workers would
    ask other questions than were planned.
    """
    if placement.own:
        return None
    found = probe(placement.python)
    there: Mapping[str, str] = found["versions"]
    here = versions(selection.catalog)
    missing, other = [], []
    for name in sorted({"loom-core", *distributions(selection)}):
        if name not in there:
            missing.append(name)
        elif there[name] != here.get(name, there[name]):
            other.append(f"{name} is {there[name]} there and {here[name]} here")
    if missing or other:
        install = " ".join(missing) or " ".join(f"{text.split()[0]}=={text.split()[-2]}" for text in other)
        raise UsageError(
            "workers cannot run in this environment",
            where=f"--python {placement.python}",
            why="; ".join([*(["it lacks " + ", ".join(missing)] if missing else []), *other]),
            hint=f"{placement.python} -m pip install {install}",
        )
    kept = {name: version for name, version in there.items() if name in here or name.startswith("loom")}
    return {"python": found["python"], "interpreter": placement.python, "versions": {**kept, **_libraries(there)}}


def _libraries(there: Mapping[str, str]) -> dict[str, str]:
    from loom_core.run.manifest import LIBRARIES

    return {name: there[name] for name in LIBRARIES if name in there}


def distributions(selection: Selection) -> set[str]:
    """The distributions that a worker of this run imports, core's own doubles left out."""
    used: list[Found[Any]] = [selection.server, *(chosen.choice.found for chosen in selection.chosen)]
    used += [selection.catalog.augmentations.get(part.name) for arm in selection.arms for part in arm.parts]
    return {found.distribution.lower() for found in used}


def probe(python: str) -> dict[str, Json]:
    """The distributions that an interpreter sees. Raises UsageError with its own words where it does not run."""
    try:
        done = subprocess.run(
            [python, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS, check=True, cwd="/"
        )
        found: dict[str, Json] = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        words = str(error.stderr or "").strip().splitlines()
        raise _no_python(python, words[-1] if words else f"it ended with exit code {error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise _no_python(python, f"it did not answer within {PROBE_SECONDS} s") from error
    except ValueError as error:
        raise _no_python(python, "it gave an unexpected answer") from error
    except OSError as error:
        raise _no_python(python, error.strerror or str(error)) from error
    return found


def _no_python(python: str, why: str) -> UsageError:
    hint = "name the interpreter of the environment, or its folder"
    return UsageError("this Python cannot be run", where=f"--python {python}", why=why, hint=hint)
