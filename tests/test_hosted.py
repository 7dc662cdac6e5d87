"""Code of plugins is called in one place: what it raises or gives costs what depends on it, and says whose it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from loom_core.api import (
    BenchmarkBase,
    Catalog,
    Evidence,
    Generation,
    Line,
    LoomError,
    ModelCard,
    PluginError,
    Prompt,
    Sample,
    Segment,
    Task,
    Turn,
    UsageError,
    segment,
)
from loom_core.contract.guard import Accident, each, guarded
from loom_core.registry.hosted import HostedBenchmark, HostedServer


class Odd(BaseException):
    pass


RAISED = [
    SystemExit(0),
    SystemExit("usage: x"),
    GeneratorExit(),
    Odd("odd"),
    ValueError("v"),
    MemoryError(),
    OSError(28),
]
TASK = Task(name="t", version="1", capability="c", metrics=("em",), generation=Generation(max_tokens=8))
SAMPLE = Sample(
    id="a", task="t", prompt=Prompt(segments=(segment("context", "abc"), segment("question", "q?"))), references=("x",)
)
CARD = ModelCard(name="m", path="m", digest="d", window=100, tokenizer=None)


class Plays(BenchmarkBase):
    """Gives what it is told to give, or raises it."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def _play(self) -> Any:
        if isinstance(self.given, BaseException):
            raise self.given
        return self.given

    def tasks(self, *_: Any) -> Any:
        return self._play()

    def samples(self, *_: Any) -> Iterator[Any]:
        yield SAMPLE
        yield self._play()

    def follow_up(self, *_: Any) -> Any:
        return self._play()

    def score(self, *_: Any) -> Any:
        return self._play()

    def score_group(self, *_: Any) -> Any:
        return self._play()

    def aggregate(self, *_: Any) -> Any:
        return self._play()

    def describe(self, *_: Any) -> Any:
        return self._play()

    def open(self, *_: Any) -> Any:
        return self._play()


def hosted(given: Any) -> Any:
    return HostedBenchmark(Plays(given), "odd", ["t"])


CALLS = {
    "tasks()": lambda plugin: plugin.tasks(()),
    "samples()": lambda plugin: list(plugin.samples(TASK, None, None, ())),
    "follow_up()": lambda plugin: plugin.follow_up(SAMPLE, []),
    "score()": lambda plugin: plugin.score(SAMPLE, [], {}),
    "score_group()": lambda plugin: plugin.score_group([]),
    "aggregate()": lambda plugin: plugin.aggregate([]),
}


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", CALLS)
def test_whatever_a_benchmark_raises_names_it(call: str, error: BaseException) -> None:
    with pytest.raises(PluginError) as caught:
        CALLS[call](hosted(error))
    assert caught.value.what.startswith(f"benchmark odd: {call} raised {type(error).__name__}")
    assert "test_hosted.py, line" in caught.value.where
    assert LoomError.from_json(caught.value.to_json()).__class__ is PluginError


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", ["describe", "open"])
def test_whatever_a_server_raises_names_it(call: str, error: BaseException) -> None:
    with pytest.raises(PluginError, match=rf"server odd: {call}\(\) raised"):
        getattr(HostedServer(Plays(error), "odd"), call)("m", None)


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_and_refusals_pass(call: str) -> None:
    for error in (KeyboardInterrupt(), UsageError("no")):
        with pytest.raises(type(error)):
            CALLS[call](hosted(error))


def test_an_iterator_that_is_left_is_closed_and_what_it_raises_then_is_an_accident() -> None:
    def items() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise SystemExit(0)

    iterator = each(items(), "x", "items()")
    assert next(iterator) == 1
    with pytest.raises(Accident):
        iterator.close()  # type: ignore[attr-defined]


def test_an_error_without_a_text_is_told() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(PluginError, match="x raised Mute"), guarded("x"):
        raise Mute


TASKS: list[Any] = [
    *(None, 5, "t", ("t",), {}, iter(()), (TASK, TASK)),
    *((replace(TASK, **change),) for change in (
        {"name": "zzz"},
        {"name": 5},
        {"name": "../../x"},
        {"metrics": ()},
        {"metrics": ("em", "em")},
        {"metrics": "em"},
        {"metrics": (5,)},
        {"generation": None},
        {"generation": Generation(max_tokens=-5)},
        {"generation": Generation(max_tokens=0)},
        {"generation": Generation(max_tokens=True)},
        {"generation": Generation(max_tokens=8.0)},  # type: ignore[arg-type]
        {"generation": Generation(max_tokens=8, temperature=math.nan)},
        {"generation": Generation(max_tokens=8, top_p=0.0)},
        {"generation": Generation(max_tokens=8, stop="x")},  # type: ignore[arg-type]
        {"generation": Generation(max_tokens=8, repeats=0)},
        {"chance": math.nan},
        {"chance": math.inf},
        {"chance": "0"},
        {"chat": "evil"},
        {"sources": ("x",)},
        {"grid": 1},
        {"version": 1},
    )),
]  # fmt: skip
SAMPLES: list[Any] = [
    *(None, 5, "x", {}),
    *(replace(SAMPLE, **change) for change in (
        {"id": 5},
        {"id": ""},
        {"prompt": None},
        {"prompt": Prompt(segments=())},
        {"prompt": Prompt(segments=(segment("context", ""),))},
        {"prompt": Prompt(segments=(segment("evil", "x"),))},  # type: ignore[arg-type]
        {"prompt": Prompt(segments=(Segment(kind="context", text="x", role="root"),))},  # type: ignore[arg-type]
        {"prompt": Prompt(segments=(Segment(kind="context", text=b"x"),))},  # type: ignore[arg-type]
        {"references": "x"},
        {"references": (object(),)},
        {"references": (math.nan,)},
        {"negatives": (5,)},
        {"level": 5},
        {"depth": math.nan},
        {"depth": 7.5},
        {"depth": -0.1},
        {"evidence": (Evidence(segment=99, start=0, end=1),)},
        {"evidence": (Evidence(segment=0, start=-5, end=1),)},
        {"evidence": (Evidence(segment=0, start=0, end=10**9),)},
        {"evidence": (Evidence(segment=0, start=2, end=1),)},
        {"evidence": "x"},
        {"cluster": 5},
        {"group": ("g",)},
        {"meta": {"x": object()}},
        {"meta": {"x": math.nan}},
        {"meta": {5: 1}},
        {"meta": None},
        {"length": 1.5},
    )),
]  # fmt: skip
TURNS: list[Any] = ["x", 5, (), Turn(prompt=None, generation=Generation(max_tokens=1))]  # type: ignore[arg-type]
TURNS += [
    Turn(prompt=Prompt(segments=()), generation=Generation(max_tokens=1)),
    Turn(prompt=SAMPLE.prompt, generation=Generation(max_tokens=0)),
    Turn(prompt=SAMPLE.prompt, generation=None),  # type: ignore[arg-type]
]
LINE = Line(name="x", metric="m", value=0.5, n=1)
LINES: list[Any] = [None, 5, "x", [1], [None]]
LINES += [
    [replace(LINE, **change)]
    for change in (
        {"name": 5},
        {"value": "0.5"},
        {"value": 1j},
        {"n": -1},
        {"n": "1"},
        {"missing": -1},
        {"digits": 2.5},
    )
]
CARDS: list[Any] = [None, "m", 5, {}]
CARDS += [
    replace(CARD, **change)
    for change in (
        {"name": None},
        {"digest": 5},
        {"window": -5},
        {"window": 1.5},
        {"window": math.inf},
        {"kv_bytes_per_token": -1},
        {"facts": {"x": object()}},
        {"facts": None},
    )
]


@pytest.mark.parametrize(
    ("call", "given"),
    [
        *(("tasks()", given) for given in TASKS),
        *(("samples()", given) for given in SAMPLES),
        *(("follow_up()", given) for given in TURNS),
        *(("aggregate()", given) for given in LINES),
    ],
)
def test_what_a_benchmark_should_not_give_is_refused_by_name(call: str, given: Any) -> None:
    with pytest.raises(PluginError, match=r"^benchmark odd: ") as caught:
        CALLS[call](hosted(given))
    assert not isinstance(caught.value, Accident)


@pytest.mark.parametrize("given", CARDS)
def test_a_card_that_is_none_is_refused_by_name(given: Any) -> None:
    with pytest.raises(PluginError, match=r"^server odd: "):
        HostedServer(Plays(given), "odd").describe("m", None)


def test_what_is_right_passes_as_it_is() -> None:
    assert hosted((TASK,)).tasks(()) == (TASK,)
    assert CALLS["samples()"](hosted(SAMPLE)) == [SAMPLE, SAMPLE]
    turn = Turn(prompt=SAMPLE.prompt, generation=TASK.generation)
    assert hosted(turn).follow_up(SAMPLE, []) is turn
    assert hosted(None).follow_up(SAMPLE, []) is None
    assert hosted([LINE]).aggregate([]) == [LINE]
    assert hosted([replace(LINE, value=math.nan)]).aggregate([])[0].value is None
    assert HostedServer(Plays(CARD), "odd").describe("m", None) is CARD


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_hooks_that_raise_break_their_plugin_and_observers_stop_nobody(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    from loom_core.api import hookimpl

    class Plugin:
        @hookimpl
        def loom_metrics(self) -> Any:
            raise error

        @hookimpl
        def loom_response(self, record: Any) -> None:
            record["text"] = "changed"
            raise error

    catalog, record = Catalog(), {"text": "kept"}
    catalog.register(Plugin(), "odd", "dist", "1")
    assert [one.name for one in catalog.broken] == ["odd"]
    assert type(error).__name__ in catalog.broken[0].why
    catalog.observe("loom_response", record=record)
    assert record == {"text": "kept"}
    assert type(error).__name__ in capsys.readouterr().err
