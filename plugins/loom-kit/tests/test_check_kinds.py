"""`loom check` names the fault of broken benchmarks, strategies and reports: small ones, each with one fault."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import click
import pytest
from loom_kit.conformance import check_package, check_spec
from loom_kit.conformance_benchmark import check_benchmark
from loom_kit.conformance_command import check_commands
from loom_kit.conformance_report import check_report
from loom_kit.conformance_strategy import check_strategy
from loom_kit.protocols import implements
from loom_kit.rows import Row

from loom_core.api import (
    AugmentationSpec,
    BenchmarkBase,
    BenchmarkSpec,
    CommandSpec,
    Evidence,
    Generation,
    MetricSpec,
    NoOptions,
    Prompt,
    ReportSpec,
    Sample,
    Scored,
    Task,
    Turn,
    UsageError,
    installed,
    segment,
)
from loom_core.registry.commands import Command


def faults(rows: Iterator[Row]) -> str:
    """The failed rows as `loom check` prints them."""
    return "\n".join(f"{row.check}: {row.why}" for row in rows if not row.passed)


# --- benchmarks ------------------------------------------------------------------------------------------------------


class Holds:
    """The metric of these benchmarks."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        return Scored(value=float(str(sample.references[0]) in prediction))


class Keys(BenchmarkBase):
    """No fault: a key in a text. The others spoil one thing each."""

    def __init__(self, options: Any = None) -> None: ...

    def tasks(self, lengths: tuple[int, ...]) -> tuple[Task, ...]:
        generation = Generation(max_tokens=8)
        return (Task(name="t", version="1", capability="retrieval", metrics=("holds",), generation=generation),)

    def random(self, number: int) -> random.Random:
        """Seeded with text."""
        return random.Random(f"keys {number}")

    def one(self, number: int, key: str, context: str) -> dict[str, Any]:
        """The parts of a sample."""
        at = context.index(key)
        evidence = (Evidence(segment=0, start=at, end=at + len(key)),)
        return {"id": f"q{number}", "references": (key,), "evidence": evidence, "depth": 0.5}

    def samples(self, task: Task, data: Any, tokenizer: Any, lengths: tuple[int, ...]) -> Iterator[Sample]:
        for number in range(6):
            key = str(self.random(number).randint(1000, 9999))
            context = "a b c. " * 20 + f"The key is {key}. " + "d e f. " * 20
            prompt = Prompt(segments=(segment("context", context), segment("question", "\nkey?")))
            yield Sample(**{"task": "t", "prompt": prompt, **self.one(number, key, context)})


class Unseeded(Keys):
    def random(self, number: int) -> random.Random:
        return random.Random()


class HashSeeded(Keys):
    def random(self, number: int) -> random.Random:
        return random.Random(hash(f"keys {number}"))


class NotThere(Keys):
    def one(self, number: int, key: str, context: str) -> dict[str, Any]:
        return {**super().one(number, key, context), "references": ("not there",)}


class EvidenceOutside(Keys):
    def one(self, number: int, key: str, context: str) -> dict[str, Any]:
        return {**super().one(number, key, context), "evidence": (Evidence(segment=0, start=9000, end=9010),)}


class EvidenceElsewhere(Keys):
    def one(self, number: int, key: str, context: str) -> dict[str, Any]:
        return {**super().one(number, key, context), "evidence": (Evidence(segment=0, start=0, end=4),)}


class DeepBeyond(Keys):
    def one(self, number: int, key: str, context: str) -> dict[str, Any]:
        return {**super().one(number, key, context), "depth": 7.0}


class OneId(Keys):
    def one(self, number: int, key: str, context: str) -> dict[str, Any]:
        return {**super().one(number, key, context), "id": "same"}


class NumberedIds(Keys):
    def one(self, number: int, key: str, context: str) -> dict[str, Any]:
        return {**super().one(number, key, context), "id": number}


class AsksNothing(Keys):
    def one(self, number: int, key: str, context: str) -> dict[str, Any]:
        prompt = Prompt(segments=(segment("context", context),))
        return {**super().one(number, key, context), "prompt": prompt}


class PeeksAtReferences(Keys):
    def follow_up(self, sample: Sample, responses: Any) -> Turn | None:
        assert sample.references[0], "a reference is looked at beside the server"
        return None


class AsksForEver(Keys):
    def follow_up(self, sample: Sample, responses: Any) -> Turn | None:
        return Turn(prompt=sample.prompt, generation=Generation(max_tokens=8))


class AsksForNoToken(Keys):
    def tasks(self, lengths: tuple[int, ...]) -> tuple[Task, ...]:
        return tuple(replace(task, generation=Generation(max_tokens=0)) for task in super().tasks(lengths))


BENCHMARK_FAULTS: dict[type[Keys], str] = {
    AsksForNoToken: "max_tokens: 0 is below 1",
    Unseeded: "two readings differ",
    HashSeeded: "another process reads other samples of t",
    NotThere: "no reference is in its context",
    EvidenceOutside: "evidence of q0 is out of its segment",
    EvidenceElsewhere: "does not hold the reference, which the context does",
    DeepBeyond: "has depth=7: a relative position, 0 to 1",
    OneId: "sample ids repeat",
    NumberedIds: "the id 0 is not a text",
    AsksNothing: "asks nothing: no question, no instruction",
    PeeksAtReferences: "IndexError: tuple index out of range",
    AsksForEver: "asks without end",
}


def benchmark_rows(kind: type[Keys]) -> Iterator[Row]:
    factory = f"{kind.__module__}:{kind.__name__}"
    spec = BenchmarkSpec(name="mine", version="1", summary="x", factory=factory, tasks=("t",))
    metric = MetricSpec(name="holds", version="1", summary="x", factory="x:x")
    return check_benchmark(spec, kind, lambda _: {"holds": (metric, Holds())})


@pytest.mark.parametrize("kind", BENCHMARK_FAULTS, ids=lambda kind: kind.__name__)
def test_a_broken_benchmark_is_named(kind: type[Keys]) -> None:
    assert BENCHMARK_FAULTS[kind] in faults(benchmark_rows(kind))


def test_a_sound_benchmark_passes() -> None:
    assert not faults(benchmark_rows(Keys))


# --- strategies ------------------------------------------------------------------------------------------------------


class Twice:
    """No fault: asks, asks again, answers with the second reply."""

    def __init__(self, options: Any) -> None: ...

    def solve(self, turn: Turn) -> Any:
        yield turn
        response = yield turn
        return response.text


class NeverEnds(Twice):
    def solve(self, turn: Turn) -> Any:
        while True:
            yield turn


class AsksNobody(Twice):
    def solve(self, turn: Turn) -> Any:
        return "42"
        yield turn


class AnswersARecord(Twice):
    def solve(self, turn: Turn) -> Any:
        return (yield turn)


class ExpectsANumber(Twice):
    def solve(self, turn: Turn) -> Any:
        return str(int((yield turn).text))


class Remembers(Twice):
    seen = ""

    def solve(self, turn: Turn) -> Any:
        shown = Prompt(segments=(*turn.prompt.segments, segment("instruction", f"Before: {self.seen[:20]}")))
        self.seen = turn.prompt.context
        return (yield Turn(prompt=shown, generation=turn.generation)).text


class OneAtATime(Twice):
    turn: Any = None

    def solve(self, turn: Turn) -> Any:
        self.turn = turn
        yield self.turn
        return (yield self.turn).text


class NoGenerator(Twice):
    def solve(self, turn: Turn) -> Any:
        return [turn]


STRATEGY_FAULTS: dict[type[Twice], str] = {
    NeverEnds: "asks more than 64 times",
    AsksNobody: "without asking the model",
    AnswersARecord: "a Response, not a string",
    ExpectsANumber: "raised ValueError",
    Remembers: "state between jobs",
    OneAtATime: "two jobs that run side by side get other calls",
    NoGenerator: "solve returned a list, not a generator",
}


def strategy_rows(kind: type[Twice]) -> Iterator[Row]:
    spec = AugmentationSpec(
        name="mine", version="1", summary="x", factory="x:x", kind="strategy", options=NoOptions, phase="prompt"
    )
    return check_strategy(spec, kind)


@pytest.mark.parametrize("kind", STRATEGY_FAULTS, ids=lambda kind: kind.__name__)
def test_a_broken_strategy_is_named(kind: type[Twice]) -> None:
    assert STRATEGY_FAULTS[kind] in faults(strategy_rows(kind))


def test_a_sound_strategy_passes() -> None:
    assert not faults(strategy_rows(Twice))


# --- reports ---------------------------------------------------------------------------------------------------------


def raises(report: Mapping[str, Any]) -> Any:
    raise KeyError("nope")


def needs_scores(report: Mapping[str, Any]) -> Any:
    return str(report["tasks"][0]["arms"][0]["name"][0]) + str(1 / len(report["arms"]) / report["state"]["done"])


def gives_a_list(report: Mapping[str, Any]) -> Any:
    return sorted(report)


def paints(report: Mapping[str, Any]) -> Any:
    return "\x1b[31mred\x1b[0m"


def alters(report: Any) -> Any:
    report.clear()
    return "x"


def says_nothing(report: Mapping[str, Any]) -> Any:
    return ""


def holds_half_a_character(report: Mapping[str, Any]) -> Any:
    return "\ud800"


REPORT_FAULTS: dict[Any, str] = {
    holds_half_a_character: "a lone surrogate",
    raises: "raised KeyError: 'nope'",
    needs_scores: "not every run has every part",
    gives_a_list: "returned a list, not text",
    paints: "terminal escapes",
    alters: "the document is altered",
    says_nothing: "the text is empty",
}


@pytest.mark.parametrize("write", REPORT_FAULTS, ids=lambda write: write.__name__)
def test_a_broken_report_is_named(write: Any) -> None:
    spec = ReportSpec(name="mine", version="1", summary="x", factory="x:x")
    assert REPORT_FAULTS[write] in faults(check_report(spec, write))


def test_a_sound_report_passes() -> None:
    spec = ReportSpec(name="mine", version="1", summary="x", factory="x:x")
    assert not faults(check_report(spec, lambda report: ", ".join(sorted(report))))


# --- commands --------------------------------------------------------------------------------------------------------


def commands(*made: Any) -> Any:
    """What a plugin registers: click commands as they are, anything else as its spec."""
    rows = []
    for one in made:
        if isinstance(one, click.Command):
            rows.append(Command(CommandSpec(name=str(one.name), summary="Does it.", factory=""), "mine", one))
        else:
            rows.append(Command(one, "mine"))
    return lambda: rows


COMMAND_FAULTS: dict[str, Any] = {
    "loom has a command 'run'": commands(click.Command("run", help="Runs something else.")),
    "no help text": commands(click.Command("worst")),
    "is not a click command": commands(CommandSpec(name="odd", summary="Odd.", factory="json:loads")),
    "no command was registered": commands(),
    "is not a CommandSpec": commands("greet"),
    "summary is empty": commands(CommandSpec(name="best", summary=" ", factory="click:Command")),
    "raised TypeError": lambda: 1,
}


@pytest.mark.parametrize("fault", COMMAND_FAULTS)
def test_a_broken_command_is_named(fault: str) -> None:
    assert fault in faults(check_commands("mine", COMMAND_FAULTS[fault], frozenset({"run"})))


def test_a_plugin_of_commands_is_checked() -> None:
    try:
        rows = list(check_package("loom-parity"))
    except UsageError:
        pytest.skip("loom-parity is not installed")
    assert not faults(iter(rows)) and any(row.check == "shows its help" for row in rows)


def test_optional_parts_are_listed() -> None:
    spec = BenchmarkSpec(name="mine", version="1", summary="x", factory="x:x", tasks=("t",), parity="x:x")
    assert implements(spec, AsksForEver) == ("follow_up", "parity")


# --- no false alarm --------------------------------------------------------------------------------------------------

QUICK = ("bm25", "chain-of-agents", "double", "elsewhere", "niah", "passkey", "self-route", "streaming-rag", "truncate")
"""What needs neither a model nor data; model methods and servers have their kits in their own tests."""


@pytest.mark.parametrize("name", QUICK)
def test_nothing_of_this_repository_is_blamed(name: str) -> None:
    catalog = installed()
    found = [found for kind in catalog.kinds for found in kind if found.spec.name == name]
    if not found:
        pytest.skip(f"{name} is not installed")
    assert not faults(row for one in found for row in check_spec(one, catalog))


def test_no_metric_of_this_repository_is_blamed() -> None:
    from loom_kit.conformance_metric import check_metric

    catalog = installed()
    blamed = {}
    for found in catalog.metrics:
        if why := faults(check_metric(found.spec, catalog.load(found), needs="its own samples", huge=20_000)):
            blamed[found.spec.name] = why
    assert not blamed
