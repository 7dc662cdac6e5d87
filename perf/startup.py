"""How long the small commands take, as JSON: medians of wall seconds, with the time Python itself needs beside them.

Run `python perf/startup.py` with every plugin installed, on a machine that does nothing else. Goals: `loom --help`
under 0.3 s, `loom list` under 0.5 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

GOALS = {"loom --help": 0.3, "loom list": 0.5}
LOOM = Path(sys.executable).with_name("loom")


def seconds(command: list[str]) -> float:
    """Wall time of one run of a command, which must succeed."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Interleave the commands, so that a slow moment hits all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "loom --help": [str(LOOM), "--help"],
        "loom list": [str(LOOM), "list"],
        "loom list --format json": [str(LOOM), "list", "--format", "json"],
        "loom info passkey": [str(LOOM), "info", "passkey"],
    }
    for command in commands.values():
        seconds(command)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            times[name].append(seconds(command))
    result = {
        name: {
            "median_seconds": round(statistics.median(values), 4),
            "least_seconds": round(min(values), 4),
            "most_seconds": round(max(values), 4),
            **({"goal_seconds": GOALS[name], "met": statistics.median(values) < GOALS[name]} if name in GOALS else {}),
        }
        for name, values in times.items()
    }
    plugins = len(entry_points(group="loom"))
    print(json.dumps({"repeats": repeats, "entry_points": plugins, "commands": result}, indent=1))


if __name__ == "__main__":
    main()
