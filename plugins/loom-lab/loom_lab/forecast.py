"""What a plan will take and what it can find: fit to the window, memory, tokens, time from earlier runs, cost, power.

Everything is an estimate and says what it rests on; what cannot be known is None. Knows plans and run folders; runs
nothing.
"""

from __future__ import annotations

import math
import time
from calendar import timegm
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from loom_report.statistics import stats

from loom_core.contract.errors import RunError
from loom_core.contract.records import Plan
from loom_core.contract.types import Json
from loom_core.run.store import Damage, RunFolder, read_json, read_lines

RECORDS = 20_000
"""Answers of an earlier run that are read at most."""
RUNS = 50
"""Earlier runs that are looked at, the newest first."""
POWER = 0.8


def forecast(plan: Plan, runs: Path, workers: int) -> dict[str, Json]:
    """What running this plan takes: tokens, seconds (by arm, from `runs`), cost, and what its n can find, by cell."""
    arms: Mapping[str, Any] = plan["sizes"]["arms"]
    tokens = {key: sum(row[key] for row in arms.values()) for key in ("tokens_in", "tokens_out_most")}
    rates = _rates(plan, runs)
    seconds = {
        name: row["tokens_in"] * rates[name]["seconds_per_token"] / max(1, workers)
        for name, row in arms.items()
        if name in rates
    }
    return {
        **tokens,
        "seconds": sum(seconds.values()) if len(seconds) == len(arms) and arms else None,
        "seconds_by_arm": seconds,
        "earlier": rates,
        "no_earlier_run": [name for name in arms if name not in rates],
        "cost_most": _cost(plan["model"].get("facts") or {}, tokens),
        "power": list(_power(plan)),
    }


def _cost(facts: Mapping[str, Any], tokens: Mapping[str, int]) -> float | None:
    """The most that the tokens cost by the server's price table; None without one."""
    prices = facts.get("price_per_million")
    if not prices or prices.get("in") is None or prices.get("out") is None:
        return None
    return float(tokens["tokens_in"] * prices["in"] + tokens["tokens_out_most"] * prices["out"]) / 1e6


def _power(plan: Plan) -> Iterator[dict[str, Json]]:
    """Per cell, the smallest pure loss (a share of questions) that the paired test finds in 4 of 5 cases, where scores
    are 0/1 and questions independent; None where n is too small for any.
    """
    if len(plan["arms"]) < 2:
        return
    known: dict[int, float | None] = {}
    for task in plan["tasks"]:
        for level in task["levels"]:
            n = level["n"] - level["n_skipped"]
            if n not in known:
                known[n] = stats.detectable_loss(n, power=POWER)
            yield {"task": task["name"], "level": level["level"], "n": n, "detectable_loss": known[n]}


# --- earlier runs ----------------------------------------------------------------------------------------------------


def _rates(plan: Plan, runs: Path) -> dict[str, dict[str, Json]]:
    """Seconds per prompt token of each arm, from the newest earlier run of the same server, model and arm."""
    wanted = {arm["name"]: _told(arm) for arm in plan["arms"]}
    found: dict[str, dict[str, Json]] = {}
    for created, folder, manifest, earlier in _earlier(runs):
        if len(found) == len(wanted):
            break
        if not _alike(plan, earlier):
            continue
        theirs = {arm["name"]: _told(arm) for arm in earlier["arms"]}
        names = {name for name, told in wanted.items() if name not in found and theirs.get(name) == told}
        for name, (seconds, tokens, n) in _busy(folder, names).items():
            if tokens and seconds > 0:
                found[name] = {
                    "seconds_per_token": seconds / tokens,
                    "run": str(folder.path),
                    "age_seconds": max(0.0, time.time() - created),
                    "cpu": (manifest.get("hardware") or {}).get("cpu"),
                    "n": n,
                }
    return found


def _told(arm: Mapping[str, Any]) -> list[list[Json]]:
    """What makes arms of one name the same: methods, versions, options."""
    return [[part["name"], part["version"], part["options"]] for part in arm["parts"]]


def _alike(plan: Plan, earlier: Mapping[str, Any]) -> bool:
    same_server = plan["server"]["name"] == earlier["server"]["name"]
    return bool(same_server and plan["model"]["digest"] == earlier["model"]["digest"])


def _earlier(runs: Path) -> Iterator[tuple[float, RunFolder, Mapping[str, Any], Mapping[str, Any]]]:
    """(when, folder, manifest, plan) of earlier runs, the newest first; what cannot be read is not a help."""
    dated = []
    for path in runs.glob("*/manifest.json"):
        folder = RunFolder(path.parent)
        try:
            manifest = read_json(path)
            created = float(timegm(time.strptime(manifest["created"], "%Y-%m-%dT%H:%M:%SZ")))
        except (RunError, KeyError, TypeError, ValueError):
            continue
        if folder.prepared and folder.responses.exists():
            dated.append((created, str(path), folder, manifest))
    for created, _, folder, manifest in sorted(dated, key=lambda row: row[:2], reverse=True)[:RUNS]:
        try:
            yield created, folder, manifest, read_json(folder.plan)
        except RunError:
            continue


def _busy(folder: RunFolder, arms: Sequence[str] | set[str]) -> dict[str, tuple[float, int, int]]:
    """(seconds of a worker, prompt tokens, answers) by arm; a batch's time is shared by its requests."""
    found: dict[str, tuple[float, int, int]] = {}
    for _, record in islice(read_lines(folder.responses, Damage()), RECORDS):
        timing, arm = record.get("timing") or {}, str(record.get("arm"))
        if arm not in arms or record.get("finish") == "error":
            continue
        spent = (timing.get("ended", 0.0) - timing.get("started", 0.0)) / max(1, timing.get("batch", 1))
        seconds, tokens, n = found.get(arm, (0.0, 0, 0))
        if math.isfinite(spent) and spent >= 0:
            found[arm] = (seconds + spent, tokens + record.get("n_in", 0), n + 1)
    return found
