"""Plugins that raise, exit, lie and return rubbish in every hook and every call: a message that ends in no traceback,
and never exit code 0 with nothing done.

Each case takes a sound plugin of every kind and spoils one place of it, by the seed (LOOM_FUZZ_SEED).
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import importlib.metadata
import json
import random
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzzing import SEED, ask, quick
from loom_kit import conformance_benchmark

from loom_core.api import (
    AugmentationSpec,
    BenchmarkBase,
    BenchmarkSpec,
    Catalog,
    CommandSpec,
    Generation,
    Line,
    MetricSpec,
    ModelCard,
    ModelSpec,
    Prompt,
    ReportSpec,
    Response,
    Sample,
    Scored,
    ServerSpec,
    SuiteSpec,
    Task,
    Timing,
    Turn,
    hookimpl,
    segment,
    with_texts,
)
from loom_core.api.doubles import ToyTokenizer
from loom_core.registry.plugins import load_all

PER_PLACE = 6
MODULE = "loom_hostile_parts"


# --- what misbehaves -------------------------------------------------------------------------------------------------


class Odd(BaseException):
    """What no `except Exception` sees."""


class Unprintable(Exception):
    """What cannot even be told."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Liar:
    """Raises whatever is looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"do not touch {name}")


class Mute:
    """Has no words for itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


RAISED: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("x"),
    KeyError,
    lambda: SystemExit(0),
    lambda: SystemExit("bye"),
    GeneratorExit,
    Odd,
    Unprintable,
    RecursionError,
    MemoryError,
    StopIteration,
    lambda: OSError(errno.ENOSPC, "No space left on device", "x"),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
    lambda: click.exceptions.Exit(0),
    lambda: click.ClickException("x"),
    asyncio.CancelledError,
    lambda: ExceptionGroup("g", [ValueError("x")]),
    lambda: AssertionError("\x1b[31m\ud800" + "x" * 5000),
)
GIVEN: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: 5,
    lambda: -1,
    lambda: float("nan"),
    lambda: "text",
    lambda: "\x1b[2J\ud800",
    lambda: "",
    lambda: b"bytes",
    object,
    list,
    dict,
    lambda: [None],
    lambda: [[]],
    lambda: (object(),),
    lambda: {"m": 1},
    lambda: iter([object()]),
    lambda: (_ for _ in [1, 2]),
    lambda: len,
    lambda: Liar(),
    lambda: Mute(),
    lambda: [Liar()],
    lambda: type("Empty", (), {})(),
    lambda: type,
)


def spoilt(random_: random.Random, right: Any) -> tuple[str, Any]:
    """A function in the place of a right one: it raises, gives rubbish, or does so only the second time."""
    if random_.random() < 0.5:
        number = random_.randrange(len(RAISED))

        def wrong(*_: Any, **__: Any) -> Any:
            raise RAISED[number]()

        told = f"raises {number}"
    else:
        number = random_.randrange(len(GIVEN))

        def wrong(*_: Any, **__: Any) -> Any:
            return GIVEN[number]()

        told = f"gives {number}"
    if random_.random() < 0.8:
        return told, wrong
    calls: list[int] = []

    def later(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return (wrong if len(calls) > 1 else right)(*arguments, **named)

    return f"{told} the second time", later


def with_odd_spec(random_: random.Random, right: Callable[[], Any]) -> tuple[str, Any]:
    """A registering hook whose first spec has something else in one field."""
    first, *others = right()
    field = random_.choice(dataclasses.fields(first)).name
    number = random_.randrange(len(GIVEN))
    return f"has {number} as {field}", lambda: (dataclasses.replace(first, **{field: GIVEN[number]()}), *others)


# --- a sound plugin of every kind ------------------------------------------------------------------------------------


def tasks(self: Any, lengths: Any) -> Any:
    generation = Generation(max_tokens=8)
    return (Task(name="t", version="1", capability="reasoning", metrics=("hm",), generation=generation),)


def samples(self: Any, task: Task, data: Any, tokenizer: Any, lengths: Any) -> Iterator[Sample]:
    for i in range(2):
        parts = (segment("context", "a b c " * 3), segment("question", f"{i}?"))
        yield Sample(id=f"q{i}", task="t", prompt=Prompt(segments=parts), references=(str(i),), group="g")


def follow_up(self: Any, sample: Sample, responses: Any) -> None:
    return None


def score_group(self: Any, rows: Any) -> Any:
    return [row.scored for row in rows]


def aggregate(self: Any, rows: Any) -> Any:
    return [Line(name="all", metric="hm", value=1.0, n=2, missing=0)]


def score(self: Any, prediction: str, sample: Sample) -> Any:
    return Scored(value=1.0)


def nothing_to_open(self: Any, *_: Any) -> Any:
    return nullcontext()


def rewrite(self: Any, prompt: Prompt, tokenizer: Any, *, chat: str = "template") -> Any:
    return with_texts(prompt, {i: s.text[:5] for i, s in enumerate(prompt.segments) if s.kind == "context"})


def solve(self: Any, turn: Turn) -> Any:
    return (yield turn).text


def describe(self: Any, model: str, options: Any) -> ModelCard:
    return ModelCard(name=model, path=model, digest="d", window=4096, tokenizer=ToyTokenizer())


def generate(self: Any, requests: Any, arm: Any) -> Iterator[Response]:
    for request in requests:
        now = time.perf_counter()
        timing = Timing(queued=now, started=now, first_token=now, ended=now)
        yield Response(key=request.key, text="1", finish="stop", n_in=3, n_out=1, timing=timing)


def write_report(report: Any) -> str:
    return "a report"


def model_folder() -> str:
    return "hostile-model"


def suite_file() -> Path:
    return Path("suite.toml")


def observes(**_: Any) -> None: ...


def kit(parts: dict[str, Any]) -> types.ModuleType:
    """A module with a class of each kind, whose methods are `parts`."""

    def init(self: Any, *_: Any) -> None:
        parts["init"](self)

    def a_class(base: type, **methods: str) -> type:
        return type("Part", (base,), {"__init__": init, **{name: parts[one] for name, one in methods.items()}})

    session = a_class(object, generate="generate")

    def opened(self: Any, model: Any, options: Any) -> Any:
        @contextmanager
        def manager() -> Iterator[Any]:
            made = session()
            made.card = describe(self, model, options)
            made.info = parts["info"]()
            yield made
            parts["session closes"]()

        return manager()

    parts = {**parts, "server opens": parts["server opens"] or opened}
    module = types.ModuleType(MODULE)
    names = ("tasks", "samples", "follow_up", "score_group", "aggregate")
    module.B = a_class(BenchmarkBase, **dict(zip(names, names, strict=True)))  # type: ignore[attr-defined]
    module.M = a_class(object, score="score")  # type: ignore[attr-defined]
    module.P = a_class(object, open="prompt opens", rewrite="rewrite")  # type: ignore[attr-defined]
    module.S = a_class(object, open="strategy opens", solve="solve")  # type: ignore[attr-defined]
    module.V = a_class(object, describe="describe", open="server opens")  # type: ignore[attr-defined]
    for name in ("report", "model", "suite", "command"):
        setattr(module, name, parts[name])
    return module


def sound() -> dict[str, Any]:
    """Every place that may be spoilt, as it is right."""
    common = {"version": "1", "summary": "x"}
    arm = {**common, "phase": "prompt"}
    hooks: dict[str, Any] = {
        "loom_benchmarks": (BenchmarkSpec(name="hb", factory=f"{MODULE}:B", tasks=("t",), **common),),
        "loom_metrics": (MetricSpec(name="hm", factory=f"{MODULE}:M", **common),),
        "loom_augmentations": (
            AugmentationSpec(name="hp", factory=f"{MODULE}:P", kind="prompt", **arm),  # type: ignore[arg-type]
            AugmentationSpec(name="hs", factory=f"{MODULE}:S", kind="strategy", **arm),  # type: ignore[arg-type]
        ),
        "loom_servers": (
            ServerSpec(name="hv", factory=f"{MODULE}:V", capabilities=frozenset({"token_ids"}), **common),
        ),
        "loom_models": (ModelSpec(name="hmodel", factory=f"{MODULE}:model", server="hv", **common),),
        "loom_suites": (SuiteSpec(name="hsuite", factory=f"{MODULE}:suite", **common),),
        "loom_reports": (ReportSpec(name="hreport", factory=f"{MODULE}:report", **common),),
    }
    parts = {
        "init": lambda self: None,
        "tasks": tasks,
        "samples": samples,
        "follow_up": follow_up,
        "score_group": score_group,
        "aggregate": aggregate,
        "score": score,
        "prompt opens": nothing_to_open,
        "rewrite": rewrite,
        "strategy opens": nothing_to_open,
        "solve": solve,
        "describe": describe,
        "server opens": None,
        "session closes": lambda: None,
        "info": dict,
        "generate": generate,
        "report": write_report,
        "model": model_folder,
        "suite": suite_file,
        "command": click.Command("hostile-command", help="x", callback=lambda: click.echo("done")),
        "loom_commands": lambda: (CommandSpec(name="hostile-command", summary="x", factory=f"{MODULE}:command"),),
        "import": lambda: None,
        **{hook: lambda given=given: given for hook, given in hooks.items()},
        **dict.fromkeys(("loom_run_started", "loom_response", "loom_run_ended"), observes),
        **dict.fromkeys(("loom_resolve_benchmark", "loom_run_file", "loom_forecast", "loom_graded"), observes),
        "loom_facts": lambda: {"fact": "x"},
    }
    return parts


HOOKS = ("benchmarks", "metrics", "augmentations", "servers", "models", "suites", "reports")


class Point:
    """An entry point of a plugin that is spoilt."""

    dist = types.SimpleNamespace(name="loom-hostile", version="1", read_text=lambda _: "")
    value = MODULE

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        self.name, self.load = name, load


def plugin(parts: dict[str, Any]) -> types.ModuleType:
    """The registering module."""
    made = types.ModuleType("loom_hostile")
    for name in (f"loom_{hook}" for hook in HOOKS):
        # pluggy reads a hook's arguments from its signature
        setattr(made, name, hookimpl((lambda one: lambda: one())(parts[name])))
    started, response, ended = parts["loom_run_started"], parts["loom_response"], parts["loom_run_ended"]
    watching = {
        "loom_run_started": lambda folder, manifest: started(),
        "loom_response": lambda record: response(),
        "loom_run_ended": lambda folder, summary: ended(),
    }
    asked = {name: parts[f"loom_{name}"] for name in ("resolve_benchmark", "run_file", "forecast", "graded", "facts")}
    watching |= {
        "loom_resolve_benchmark": lambda name, catalog: asked["resolve_benchmark"](),
        "loom_run_file": lambda path, settings: asked["run_file"](),
        "loom_forecast": lambda plan, runs, workers: asked["forecast"](),
        "loom_graded": lambda folder, selection, graded: asked["graded"](),
        "loom_facts": lambda spec: asked["facts"](),
    }
    for name, one in watching.items():
        setattr(made, name, hookimpl(one))
    return made


CHECKED = {
    "hb": ("tasks", "samples", "follow_up"),
    "hm": ("score", "loom_metrics"),
    "hp": ("prompt opens", "rewrite", "init"),
    "hs": ("strategy opens", "solve", "loom_augmentations"),
    "hv": ("describe", "server opens", "session closes", "info", "generate", "model", "loom_models"),
    "hreport": ("report",),
}


def commands(parts: dict[str, Any]) -> types.ModuleType:
    """The module of the other entry point."""
    made = types.ModuleType("loom_hostile_commands")
    setattr(made, "loom_commands", hookimpl(lambda: parts["loom_commands"]()))  # noqa: B010 - as in `plugin`
    return made


def lines(place: str) -> list[tuple[str, ...]]:
    """The commands that reach a place."""
    if place in ("loom_commands", "command"):
        return [("hostile-command",), ("--help",), ("list",)]
    if place == "loom_resolve_benchmark":
        return [("plan", "nosuch", "--model", "hmodel")]
    if place == "loom_run_file":
        return [("plan", "./suite.toml"), ("run", "./suite.toml", "--out", "out", "-q")]
    if place == "loom_forecast":
        return [("plan", "hb", "--model", "hmodel")]
    if place == "suite":
        return [("run", "--suite", "hsuite", "--out", "out", "-q")]
    run = ("run", "hb", "--model", "hmodel", "--accel", "hp", "--accel", "hs", "--out", "out", "-q")
    found: list[tuple[str, ...]] = [("list",), run]
    if place.startswith("loom_"):
        found.append(("info", "hb"))
    if place == "report":
        found.append(("report", "out", "--format", "hreport"))
    return [*found, *(("check", name) for name, places in CHECKED.items() if place in places)]


def done(code: int, out: Path) -> bool:
    """Whether a run that ended with 0 did what it was asked."""
    if code != 0:
        return True
    state = json.loads((out / "report.json").read_text("utf-8"))["state"]
    return bool(state["n_planned"]) and bool(state["complete"])


@pytest.mark.parametrize("place", list(sound()))
def test_a_spoilt_plugin_ends_in_a_message(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_ = random.Random(f"{SEED} {place}")
    hook = place.removeprefix("loom_") in HOOKS
    quick(monkeypatch)
    real = {group: list(importlib.metadata.entry_points(group=group)) for group in ("loom", "loom.commands")}
    monkeypatch.setattr(conformance_benchmark, "_elsewhere", lambda *_: None)
    (tmp_path / "suite.toml").write_text('benchmarks = ["hb"]\nmodel = "hmodel"\n')
    for number in range(PER_PLACE):
        parts = sound()
        told, parts[place] = (
            spoilt(random_, parts[place]) if number % 3 or not hook else with_odd_spec(random_, parts[place])
        )
        monkeypatch.setitem(sys.modules, MODULE, kit(parts))

        def load(parts: dict[str, Any] = parts) -> Any:
            return parts["import"]() or plugin(parts)

        points = {
            "loom": [Point("hostile", load)],
            "loom.commands": [Point("hostile", lambda parts=parts: commands(parts))],
        }
        with monkeypatch.context() as patch, chdir(tmp_path):
            patch.setattr(importlib.metadata, "entry_points", lambda group, p=points: [*real[group], *p[group]])
            catalog: Catalog = load_all()
            for module in ("loom_core.registry.plugins", "loom_core.run.worker", "loom_kit.conformance"):
                patch.setattr(f"{module}.installed", lambda catalog=catalog: catalog)
            out = tmp_path / f"{number}"
            for arguments in lines(place):
                line = tuple(str(out) if word == "out" else word for word in arguments)
                what = f"{place} {told}: loom {' '.join(line)} (seed {SEED})"
                try:
                    code, said = ask(*line)
                except BaseException as error:
                    raise AssertionError(f"{what}: {type(error).__name__}") from error
                assert code != 0 or said.strip(), f"{what} said nothing and did nothing"
                if line[0] == "run":
                    assert done(code, out), f"{what}: 0, and not all was done"
