"""The RULER benchmark: its tasks, samples and table. Knows no model; reads upstream files through `Data`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path

from loom_bench_ruler.chains import loom_chains
from loom_bench_ruler.counting import frequent, loom_common
from loom_bench_ruler.draft import Maker
from loom_bench_ruler.levels import Filled, official_sample
from loom_bench_ruler.meter import Meter
from loom_bench_ruler.needles import NeedleMaker, loom_hay
from loom_bench_ruler.official import CHECKOUT, LONG_LISTS, Choice, Official
from loom_bench_ruler.plugin import TASKS, RulerOptions
from loom_bench_ruler.questions import loom_questions
from loom_bench_ruler.settings import (
    LOOM_SETTINGS,
    LOOM_WORDING,
    MAX_TOKENS,
    Chains,
    Common,
    Frequent,
    Needles,
    Wording,
    family,
)
from loom_bench_ruler.table import table
from loom_bench_ruler.words import own_book
from loom_core.api import (
    BenchmarkBase,
    Data,
    DataSource,
    Generation,
    Graded,
    Json,
    Line,
    Sample,
    Task,
    Tokenizer,
    gold_scored,
    read_pins,
)
from loom_core.api.serving import Chat

LEVELS = {"loom": (4096, 8192), "official": (4096, 8192, 16384, 32768, 65536, 131072)}
SAMPLES = {"loom": 20, "official": 500}
SEEDS = {"loom": 0, "official": 42}
PREFIX = "loom_"
MATCH_ALL, MATCH_ANY = "ruler_match_all", "ruler_match_any"
NO_RETRIEVAL = ("vt", "cwe", "fwe")


class Ruler(BenchmarkBase):
    """Thirteen tasks of one variant."""

    def __init__(self, options: RulerOptions) -> None:
        self._options = options
        self._measured: Meter | None = None

    @cached_property
    def _pins(self) -> Mapping[str, DataSource]:
        return read_pins(Path(__file__))

    def sources(self) -> tuple[DataSource, ...]:
        """Every file that can be fetched and that any options need."""
        checkout = {LONG_LISTS, *(CHECKOUT.format(name) for name in ("squad", "hotpotqa"))}
        return tuple(source for name, source in self._pins.items() if name not in checkout)

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """The variant's tasks."""
        return tuple(self._task(name) for name in TASKS)

    def _task(self, name: str) -> Task:
        kind = family(LOOM_SETTINGS[name])
        loom = self._options.variant == "loom"
        return Task(
            name=(PREFIX if loom else "") + name,
            version="1" if loom else "2",
            capability="retrieval" if kind == "niah" else "aggregation" if kind in ("cwe", "fwe") else "reasoning",
            metrics=(MATCH_ANY if kind == "qa" else MATCH_ALL,),
            generation=Generation(max_tokens=MAX_TOKENS[kind]),
            chance=0.0,
            sources=() if loom else Official(self._pins).sources(name),
            licence="Apache-2.0" if loom else "Apache-2.0; essays by Paul Graham; SQuAD, HotpotQA CC BY-SA 4.0",
            retrieval=kind not in NO_RETRIEVAL,
        )

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """As many samples as the options say at every length, the lengths in turn.

        One of loom's is drawn from its own id; the official ones are the first of the authors' run at each length.
        lengths: model tokens. Raises UsageError where a length is too short for the task, Unavailable where a file or
        word list of the official variant is missing.
        """
        options, meter = self._options, self._meter(tokenizer, task.chat)
        name = task.name.removeprefix(PREFIX)
        levels = tuple(dict.fromkeys(lengths)) or options.levels or LEVELS[options.variant]
        made = self._loom if options.variant == "loom" else self._official
        runs = made(name, task, data, meter, levels)
        for _ in range(options.samples or SAMPLES[options.variant]):
            for run in runs:
                yield next(run)

    @property
    def _seed(self) -> int:
        return SEEDS[self._options.variant] if self._options.seed is None else self._options.seed

    def _loom(
        self, name: str, task: Task, data: Data, meter: Meter, levels: Sequence[int]
    ) -> Sequence[Iterator[Sample]]:
        wording: Wording = LOOM_WORDING[family(LOOM_SETTINGS[name])]
        built = [
            Filled(wording, loom_maker(name, meter, level, self._seed), meter, task.name, level, self._seed)
            for level in levels
        ]
        return [map(filled.sample, count()) for filled in built]

    def _official(
        self, name: str, task: Task, data: Data, meter: Meter, levels: Sequence[int]
    ) -> Sequence[Iterator[Sample]]:
        read = Official(self._pins).read(name, data)
        choice = Choice(self._options.vt, self._options.long_lists)
        cut = meter.around(family(LOOM_SETTINGS[name])) if self._options.room == "template" else 0

        def run(level: int) -> Iterator[Sample]:
            where = f"{task.name}, length {level}"
            made = read.samples(level, cut, task.generation.max_tokens, self._seed, where, meter.text, choice)
            return (official_sample(one, task.name, level, i, meter) for i, one in enumerate(made))

        return [run(level) for level in levels]

    def _meter(self, tokenizer: Tokenizer | None, chat: Chat) -> Meter:
        """One meter for all tasks, which measures what they share once."""
        if self._measured is None or self._measured.tokenizer is not tokenizer or self._measured.chat != chat:
            self._measured = Meter(tokenizer, chat)
        return self._measured

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """Means times 100 by task and length, their means by length, and the effective length."""
        return table(rows, PREFIX)

    @staticmethod
    def score_gold(row: Mapping[str, Json]) -> float:
        """The official score of a gold row, one prediction or a task's list of them: 0 to 100, two decimals.

        A metric of another name is that of the task.
        """
        of_task = MATCH_ANY if str(row.get("task")).removeprefix(PREFIX).startswith("qa") else MATCH_ALL
        name = {"string_match_all": MATCH_ALL, "string_match_part": MATCH_ANY}.get(str(row.get("metric")), of_task)
        prediction, references = row["prediction"], row["references"]
        whole = isinstance(prediction, list)
        pairs = list(zip(prediction, references, strict=True)) if whole else [(prediction, references)]
        values = [gold_scored(name, {"prediction": text, "references": wanted}).value or 0.0 for text, wanted in pairs]
        return round(100 * sum(values) / len(values), 2) if values else 0.0


def loom_maker(name: str, meter: Meter, target: int, seed: int) -> Maker:
    """What makes the drafts of one of loom's tasks at one length."""
    settings, of = LOOM_SETTINGS[name], f"ruler {seed} {PREFIX}{name} {target}"
    match settings:
        case Needles():
            book, form = own_book(), LOOM_WORDING["niah"].needle
            hay = loom_hay(settings, form, book, meter, target, of)
            return NeedleMaker(settings, form, book, hay, shift=random.Random(target).random())
        case Chains():
            return loom_chains(settings, meter)
        case Common():
            return loom_common(settings, own_book(), meter, target, of)
        case Frequent():
            return frequent(settings, meter, target)
        case _:
            return loom_questions(settings.dataset, meter, target, of)
