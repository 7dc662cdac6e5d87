"""The names users type: `bench[@option=value,…][:task,…]` and arms `method[:option=value,…]` stacked with `+`.

Parses and resolves against a catalog; loads no factory. `{a,b}` means several values: in an arm it makes several arms,
in a benchmark's option it makes a list.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loom_core.contract.errors import UsageError, nearest
from loom_core.contract.options import MOST_ROWS, as_json, assignments, build, grid, identity, split
from loom_core.contract.specs import AugmentationSpec, BenchmarkSpec
from loom_core.contract.tomlfile import read_toml
from loom_core.contract.types import Arm, Json, Part
from loom_core.registry.plugins import Catalog, Found

DENSE = Arm(name="dense")
"""The baseline: no augmentation. It is part of every run."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A benchmark that was asked for: its spec, typed options, and the tasks chosen (empty = all)."""

    found: Found[BenchmarkSpec]
    options: Any
    tasks: tuple[str, ...]
    text: str


def parse_benchmark(text: str, catalog: Catalog) -> Choice:
    """`passkey@variant=essays,words=512:essays`, or the path of a description, as a choice.

    Raises UsageError with near names.
    """
    head, colon, tasks = _split_outside(text, ":")
    name, at, options = _split_outside(head, "@")
    found = _benchmark(name.strip(), catalog)
    chosen = tuple(task.strip() for task in split(tasks, ",")) if colon else ()
    for task in chosen:
        if task not in found.spec.tasks:
            raise UsageError(
                f"unknown task {task!r} of benchmark {name}", where=text, hint=nearest(task, found.spec.tasks)
            )
    values = assignments(options, where=text) if at else {}
    return Choice(found, build(found.spec.options, values, owner=f"benchmark {name}"), chosen, text)


def is_description(name: str) -> bool:
    """True for the path of a TOML file with a [benchmark] table, perhaps with `:task` behind it."""
    path = name.partition(".toml")[0] + ".toml"
    if ".toml" not in name or name[len(path) :][:1] not in ("", ":", "@") or not os.path.isfile(path):
        return False
    try:
        return "benchmark" in read_toml(Path(path))
    except (OSError, ValueError):
        # A broken file is meant as a benchmark where it names one; else it is a study, which says what is wrong.
        return b"[benchmark]" in Path(path).read_bytes()


def _benchmark(name: str, catalog: Catalog) -> Found[BenchmarkSpec]:
    """The benchmark of that name: registered, or what a plugin takes the name for."""
    if name not in catalog.benchmarks:
        found: Found[BenchmarkSpec] | None = catalog.first("loom_resolve_benchmark", name=name, catalog=catalog)
        if found is not None:
            return found
        if is_description(name):
            raise UsageError(
                "no installed plugin reads benchmarks from files", where=name, hint="pip install loom-bench-files"
            )
    return catalog.benchmarks.get(name)


def parse_arms(texts: Iterable[str], catalog: Catalog) -> tuple[Arm, ...]:
    """The arms of a run: `dense` first, then each text with its grids expanded; an arm given twice counts once."""
    arms = {DENSE.name: DENSE}
    for text in texts:
        for arm in _expand(text, catalog):
            arms.setdefault(arm.name, arm)
    return tuple(arms.values())


def _expand(text: str, catalog: Catalog) -> list[Arm]:
    if text.strip() == DENSE.name:
        return [DENSE]
    stacks: list[tuple[Part, ...]] = [()]
    for piece in split(text, "+"):
        name, colon, options = piece.strip().partition(":")
        found = catalog.augmentations.get(name.strip())
        values = assignments(options, where=text) if colon else {}
        parts = [_part(found, row) for row in grid(values)]
        if stacks and any(part.name == found.spec.name for part in stacks[0]):
            raise UsageError(f"{found.spec.name} is named twice in one arm", where=f"arm {text}", hint="name it once")
        if len(stacks) * len(parts) > MOST_ROWS:
            why = f"its grids make {len(stacks) * len(parts)} arms, and one run takes at most {MOST_ROWS}"
            raise UsageError("the grid is too large", where=f"arm {text}", why=why, hint="give fewer values")
        stacks = [(*stack, part) for stack in stacks for part in parts]
    stacks = [_with_retriever(stack, catalog, text) for stack in stacks]
    if not stacks or not stacks[0]:
        raise UsageError("an empty arm", where=repr(text), hint="write method or method:option=value")
    arms = [Arm(name="+".join(part.text for part in stack), parts=stack) for stack in stacks]
    if len(strategies := arms[0].of_kind("strategy")) > 1:
        names = " and ".join(part.name for part in strategies)
        raise UsageError("an arm has one strategy at most", where=f"arm {text}", why=f"{names} are strategies")
    return arms


def _part(found: Found[AugmentationSpec], values: dict[str, str]) -> Part:
    spec = found.spec
    text = spec.name + (":" + ",".join(f"{k}={v}" for k, v in values.items()) if values else "")
    options = build(spec.options, values, owner=f"augmentation {spec.name}")
    return Part(name=spec.name, version=spec.version, kind=spec.kind, options=options, text=text)


def _with_retriever(stack: tuple[Part, ...], catalog: Catalog, text: str) -> tuple[Part, ...]:
    """The stack, led by the retriever that one of its parts stands on where it names none itself."""
    specs = [catalog.augmentations.get(part.name).spec for part in stack]
    if any(spec.retrieval and spec.kind == "prompt" for spec in specs):
        return stack
    for part, spec in zip(stack, specs, strict=True):
        if not spec.stands_on:
            continue
        found = catalog.augmentations.get(getattr(part.options, spec.stands_on))
        if not (found.spec.retrieval and found.spec.kind == "prompt"):
            raise UsageError(f"{found.spec.name} is not a retriever", where=f"arm {text}, option {spec.stands_on}")
        return (_part(found, {}), *stack)
    return stack


def arm_identity(arm: Arm) -> Json:
    """What enters a key: names, behaviour versions and all options, also those left at their defaults."""
    return [[part.name, part.version, identity(part.options)] for part in arm.parts]


def arm_to_json(arm: Arm) -> Json:
    """An arm for another process; `arm_from_json` is the inverse where the same plugins are installed."""
    return {"name": arm.name, "parts": [[p.name, p.text, as_json(p.options)] for p in arm.parts]}


def arm_from_json(record: Json, catalog: Catalog) -> Arm:
    """Rebuild an arm that crossed a process border."""
    parts = []
    for name, text, options in record["parts"]:
        spec = catalog.augmentations.get(name).spec
        built = build(spec.options, options, owner=f"augmentation {name}")
        parts.append(Part(name=name, version=spec.version, kind=spec.kind, options=built, text=text))
    return Arm(name=record["name"], parts=tuple(parts))


def refusal(arm: Arm, capabilities: frozenset[str], server: str, catalog: Catalog) -> UsageError | None:
    """Why this server cannot do this arm, naming the servers that can; None if it can."""
    for part in arm.parts:
        missing = catalog.augmentations.get(part.name).spec.requires - capabilities
        if missing:
            needs = catalog.augmentations.get(part.name).spec.requires
            able = [f.spec.name for f in catalog.servers if needs <= f.spec.capabilities]
            return UsageError(
                f"server {server} cannot do {part.name}",
                where=f"arm {arm.name}",
                why=f"{part.name} needs {', '.join(sorted(missing))}",
                hint="servers that can: " + (", ".join(able) if able else "none is installed"),
            )
    return None


def _split_outside(text: str, separator: str) -> tuple[str, str, str]:
    """Like `str.partition`, but a separator inside braces does not count."""
    pieces: Sequence[str] = split(text, separator) or [""]
    return pieces[0], separator if len(pieces) > 1 else "", separator.join(pieces[1:])
