"""`loom plan`: what would run, what is refused and why, what it takes and what it can find; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from loom_core.cli.exits import paint, say, say_json
from loom_core.cli.settings import config_from, run_file, settings

BAR = 30
"""Columns of the longest bar of a chart."""


@click.command(short_help="Show what would run, what is refused and why.")
@settings
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def plan(what: tuple[str, ...], form: str, **flags: Any) -> int:
    """Show what `loom run` with the same arguments would do: what is refused and why, how prompts fit the window, and
    what it takes in memory, tokens, time (from earlier runs below runs/) and money. Needs no GPU and loads no weights.
    """
    from loom_core.registry.plugins import installed

    study = run_file(what, flags)
    if study is None:
        config = config_from(what, flags)
        made = _made(config)
        _print(made if form == "json" else None, [("", config, made)])
        return _refused(made)
    study.check(installed())
    plans = {name: _made(config) for name, config in study.systems.items()}
    rows = [(name, study.systems[name], made) for name, made in plans.items()]
    _print({"systems": plans} if form == "json" else None, rows)
    return max(_refused(made) for made in plans.values())


def _made(config: Any) -> dict[str, Any]:
    """The plan of one run with its forecast."""
    from loom_core.pipeline import RUNS, open_data
    from loom_core.registry.plugins import installed
    from loom_core.run.plan import make_plan
    from loom_core.run.selection import select

    selection = select(config, installed())
    made = make_plan(selection, selection.describe(), open_data(selection.config), None)
    catalog, workers = installed(), selection.config.workers
    return {**made, "forecast": catalog.first("loom_forecast", plan=made, runs=RUNS, workers=workers)}


def _print(record: dict[str, Any] | None, rows: list[tuple[str, Any, dict[str, Any]]]) -> None:
    """The record as JSON, or without one the plans as tables, each under its system's name."""
    if record is not None:
        say_json(record)
        return
    for i, (name, config, made) in enumerate(rows):
        if name:
            say("\n" if i else "", paint(f"system {name}", bold=True))
        _show(made, dict(config.origins))


def _refused(made: Any) -> int:
    """Why the plan cannot run, printed; its exit code, 0 where nothing is in the way."""
    from loom_core.contract.errors import LoomError
    from loom_core.run.refusals import refuse

    try:
        refuse(made)
    except LoomError as error:
        say(f"\nrefused: {error}", err=True)
        return error.exit_code
    return 0


def _show(made: dict[str, Any], origins: dict[str, str]) -> None:
    from loom_core.run.reporting import aligned

    model = made["model"]
    window = f"{model['window']:,} tokens" if model["window"] else "unknown"
    say(f"model   {model['name']} on {made['server']['name']}, window {window}")
    for arm in made["arms"]:
        labels = [f"{p['saves']} saving" if p["saves"] != "none" else "" for p in arm["parts"]]
        say(f"arm     {arm['name']} {' '.join(filter(None, labels))}".rstrip())
    for line in aligned(_tasks(made), right=2):
        say(line)
    say(f"{made['n_jobs']} answers from {made['n_samples']} samples")
    for line in (*_fit(made), *_memory(made["sizes"], made["longest_kv_bytes"]), *_forecast(made["forecast"])):
        say(line)
    for note in made["notes"]:
        say(f"note: {note}")
    for name, origin in origins.items():
        say(paint(f"{name} from {origin}", dim=True))


def _tasks(made: dict[str, Any]) -> list[tuple[str, ...]]:
    """Tasks and levels: samples, tokens, what is too long, and the smallest loss that the paired test finds."""
    power = {(row["task"], row["level"]): row for row in (made["forecast"] or {}).get("power") or ()}
    rows = [("task", "level", "samples", "tokens", "too long", *(["finds a loss of"] if power else []))]
    for task in made["tasks"]:
        for level in task["levels"]:
            tokens = f"{level['tokens_min']:,}-{level['tokens_max']:,}"
            row = (task["name"], level["level"], str(level["n"]), tokens, str(level["n_over"] or ""))
            found = power.get((task["name"], level["level"]), {}).get("detectable_loss")
            rows.append((*row, *([f"{100 * found:.1f} %" if found is not None else "none"] if power else [])))
        if task["unavailable"]:
            why = "refused" if task["refused"] else "unavailable here"
            rows.append((task["name"], why, "0", "", "", *([""] if power else [])))
    return rows


def _fit(made: dict[str, Any]) -> Iterator[str]:
    """How prompts with their answers fit the window, as a chart; only where some do not."""
    rows = made["sizes"]["histogram"]
    if not any(row["n"] for row in rows if row["over"] >= 1):
        return
    yield "prompt and answer, as a share of the window:"
    most = max(row["n"] for row in rows)
    filled = [i for i, row in enumerate(rows) if row["n"]]
    for row in rows[filled[0] : filled[-1] + 1]:
        low, high = f"{100 * row['over']:.0f}", "" if row["up_to"] is None else f"{100 * row['up_to']:.0f}"
        bar = "█" * -(-BAR * row["n"] // most)
        mark = "  too long" if row["over"] >= 1 and row["n"] else ""
        label = f"{low:>4} to {high:>4} %" if high else f"   over {low:>4} %"
        yield f"  {label:>15}  {bar:<{BAR}} {row['n']}{mark}"


def _memory(sizes: dict[str, Any], longest_kv_bytes: int | None) -> Iterator[str]:
    """Keys and values of the longest batch."""
    if sizes["batch_kv_bytes"] and longest_kv_bytes is not None:
        one = f", {longest_kv_bytes / 1e6:,.1f} MB for the longest prompt alone" if sizes["batch"] > 1 else ""
        batch = f"the longest batch of {sizes['batch']}" if sizes["batch"] > 1 else "the longest prompt"
        yield f"memory  dense KV of {batch}: {sizes['batch_kv_bytes'] / 1e6:,.1f} MB{one} (weights not counted)"


def _forecast(ahead: Mapping[str, Any] | None) -> Iterator[str]:
    """Tokens, time and cost, each with what it rests on; nothing where no plugin forecasts."""
    if ahead is None:
        return
    yield f"tokens  {ahead['tokens_in']:,} in, at most {ahead['tokens_out_most']:,} out, with one call an answer"
    yield from _time(ahead)
    if ahead["cost_most"] is not None:
        yield f"cost    at most {ahead['cost_most']:,.2f} by the server's price table"
    if ahead["power"]:
        yield "power   a loss is found in 4 of 5 cases: 0/1 scores, independent questions, no question gained by chance"


def _time(ahead: Mapping[str, Any]) -> Iterator[str]:
    runs: dict[str, float] = {}
    for row in ahead["earlier"].values():
        runs[row["run"]] = row["age_seconds"]
    rests = ", ".join(f"{run} ({_span(age)} old)" for run, age in runs.items())
    missing = ahead["no_earlier_run"]
    if not runs:
        yield "time    no earlier run of this model and server below runs/"
    elif missing:
        known = sum(ahead["seconds_by_arm"].values())
        yield f"time    about {_span(known)} from {rests}, by prompt tokens; no earlier run of {', '.join(missing)}"
    elif ahead["seconds"] is not None:  # None where nothing is to be asked
        yield f"time    about {_span(ahead['seconds'])} from {rests}, by prompt tokens; opening the model not counted"


def _span(seconds: float) -> str:
    """A time span to read: 40 s, 12 min, 3.5 h, 4 days."""
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
