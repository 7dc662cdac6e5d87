"""The needle-in-a-haystack benchmark: tasks, samples by length and depth, the grid. Knows no model.

With loom's variant a prompt has just under `length` tokens, chat template included. With the official one the context
and its needle have length - 200, the authors' buffer, and the rest of the prompt comes on top.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from loom_bench_niah.haystack import CHARACTERS_PER_TOKEN, Haystack, TokenHaystack, own_text, repeated
from loom_bench_niah.judging import read_judge
from loom_bench_niah.plugin import NiahOptions, task_name
from loom_bench_niah.wording import (
    LOOM_FRAME,
    RUN_CLASS,
    Frame,
    Hidden,
    loom_needles,
    official_needle,
    read_frame,
)
from loom_core.api import (
    BenchmarkBase,
    Data,
    DataError,
    DataSource,
    Evidence,
    Generation,
    Graded,
    Json,
    JudgeSpec,
    Line,
    Prompt,
    Sample,
    Task,
    Tokenizer,
    UsageError,
    read_pins,
)
from loom_core.api.serving import render

LEVELS = (1024, 2048, 4096)
AUTHORS_LEVELS = (1000, 16000, 35)
AUTHORS_DEPTHS = 35
"""The defaults of the authors' run.py: least and greatest length, and how many of each."""
BUFFER = 200
OFFICIAL_MAX_TOKENS = 300
TOKENS_PER_NEEDLE = 48
LONGEST_CHARACTERS_PER_TOKEN = 8
"""More characters than this to a token are not planned for at first; the text grows where a tokenizer needs it."""
SLACK = 4
"""Tokens that the joints around a needle may cost on top of their parts."""
RUN, MESSAGES = "niah/needlehaystack/run.py", "niah/needlehaystack/providers/openai.py"
EVALUATOR = "niah/needlehaystack/evaluators/openai.py"
TEMPLATE = "langchain/libs/langchain/langchain/evaluation/scoring/prompt.py"
ESSAYS = "niah/needlehaystack/PaulGrahamEssays/"
CONTAINS, RECALL, JUDGE = "niah_contains", "niah_word_recall", "niah_judge"


def spaced(low: float, high: float, n: int) -> list[float]:
    """n evenly spaced numbers, both ends included, as numpy.linspace computes them; one alone is the least."""
    step = (high - low) / max(1, n - 1)
    return [low + i * step for i in range(n - 1)] + [high if n > 1 else low]


@dataclass(frozen=True, slots=True)
class _Material:
    """What the samples of a task share. hidden: the needles for a sample, given its own generator. essays: the authors'
    haystack; judge: the messages for a judge."""

    frame: Frame
    hidden: Callable[[random.Random], Hidden]
    text: Callable[[int], str]
    tidy: bool
    essays: Sequence[str] = ()
    judge: Sequence[Json] = ()


class Niah(BenchmarkBase):
    """One task, named after the variant and the needles."""

    def __init__(self, options: NiahOptions) -> None:
        self._options = options

    @cached_property
    def _pins(self) -> Mapping[str, DataSource]:
        return read_pins(Path(__file__))

    def sources(self) -> tuple[DataSource, ...]:
        """Every file that any options need."""
        return tuple(self._pins.values())

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """The one task that the options select. The official score is a judge's."""
        options = self._options
        official = options.variant == "official"
        return (
            Task(
                name=task_name(options.variant, options.needles),
                version="3" if official else "1",
                capability="retrieval",
                metrics=(JUDGE, CONTAINS, RECALL) if official else (CONTAINS, RECALL),
                generation=Generation(
                    max_tokens=OFFICIAL_MAX_TOKENS if official else TOKENS_PER_NEEDLE * options.needles
                ),
                chance=0.0 if not official else None,
                sources=self.sources() if official else (),
                licence="MIT repository; essays by Paul Graham" if official else "Apache-2.0",
                judge=JudgeSpec(name=JUDGE, version="2") if official else None,
            ),
        )

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """Needles at every length and depth, each sample drawn from its own id; any first n are spread over both."""
        options, material = self._options, self._material(data)
        authors = options.grid == "authors"
        own = [round(n) for n in spaced(*AUTHORS_LEVELS)] if authors else options.levels or LEVELS
        levels = tuple(dict.fromkeys(lengths)) or tuple(own)
        n = AUTHORS_DEPTHS if authors else options.depths
        if authors or not material.tidy:
            # The authors' depths are whole per cent.
            depths = [round(percent) / 100 for percent in spaced(0, 100, n)]
        else:
            depths = [round(depth, 4) for depth in spaced(0, 1, n)]
        haystack = self._haystack(material, tokenizer, max(levels))
        for repeat in range(options.repeats):
            for k in range(len(depths)):
                for i, level in enumerate(levels):
                    # The stride spreads the first samples over the depths; each length meets every depth once a round.
                    depth = depths[(k * stride(len(depths)) + i + repeat) % len(depths)]
                    yield self._sample(task, material, haystack, tokenizer, level, depth, repeat)

    def _material(self, data: Data) -> _Material:
        options = self._options
        if options.variant == "loom":
            return _Material(
                frame=LOOM_FRAME,
                hidden=lambda draw: loom_needles(draw, options.needles),
                text=lambda n: own_text(random.Random(f"niah {options.seed} text"), n),
                tidy=True,
            )
        run, messages = self._pins[RUN], self._pins[MESSAGES]
        values = data.constants(run, [f"{RUN_CLASS}.needle", f"{RUN_CLASS}.retrieval_question"])
        needle, question = (values[f"{RUN_CLASS}.{name}"] for name in ("needle", "retrieval_question"))
        if not isinstance(needle, str) or not isinstance(question, str) or not needle.strip():
            raise DataError("the authors' needle cannot be read", where=run.pin, why=f"{needle!r}, {question!r}")
        frame = read_frame(data.text(messages), messages.pin)
        essays = [data.text(self._pins[name]) for name in sorted(self._pins) if name.startswith(ESSAYS)]
        return _Material(
            frame=frame,
            hidden=lambda draw: official_needle(needle, question),
            text=lambda n: repeated(essays, n),
            tidy=False,
            essays=essays,
            judge=read_judge(data, self._pins[EVALUATOR], self._pins[TEMPLATE], question=question, needle=needle),
        )

    def _haystack(self, material: _Material, tokenizer: Tokenizer | None, longest: int) -> Haystack | TokenHaystack:
        """A text that holds `longest` tokens, from any of its beginnings. Raises UsageError where a tokenizer never
        gets there."""
        if material.essays and tokenizer is not None and self._options.ends == "token":
            return TokenHaystack(material.essays, tokenizer, longest)
        needed = longest * (2 if material.tidy else 1)
        characters = needed * LONGEST_CHARACTERS_PER_TOKEN
        for _ in range(4):
            haystack = Haystack.of(material.text(characters), tokenizer)
            if len(haystack.starts) >= needed:
                return haystack
            characters *= 4
        raise UsageError(
            "this tokenizer does not reach a length",
            where=f"niah, length {longest}",
            why=f"{len(haystack.text)} characters of text give {len(haystack.starts)} tokens",
            hint="check the model's tokenizer, or ask for another length",
        )

    def _sample(
        self,
        task: Task,
        material: _Material,
        haystack: Haystack | TokenHaystack,
        tokenizer: Tokenizer | None,
        level: int,
        depth: float,
        repeat: int,
    ) -> Sample:
        name = f"{task.name}-t{level}-d{depth:g}-r{repeat}"
        draw = random.Random(f"niah {self._options.seed} {name}")
        hidden = material.hidden(draw)
        if material.tidy:
            needed = tokens_of(material.frame.prompt(" ".join(hidden.needles), hidden), tokenizer) + SLACK
        else:
            needed = BUFFER + _plain_tokens("".join(hidden.needles), tokenizer)
        if level <= needed:
            raise UsageError(
                "a length is too short for the needle",
                where=f"niah, length {level}",
                why=f"needle, question and what surrounds them take {needed} tokens",
                hint=f"ask for more than {needed} tokens",
            )
        if isinstance(haystack, TokenHaystack):
            context, span = haystack.hide(level, BUFFER, hidden.needles[0], round(depth * 100))
            spans = [span]
        else:
            # loom's text begins at another sentence for each sample; the essays always begin with the first.
            begin = draw.choice(haystack.begins(level)) if material.tidy else 0
            context, spans = haystack.hide(begin, level - needed, hidden.needles, depth, tidy=material.tidy)
        prompt = material.frame.prompt(context, hidden)
        at = next(i for i, part in enumerate(prompt.segments) if part.kind == "context")
        meta: dict[str, Json] = {"question": hidden.question, "repeat": repeat, "oracle": "; ".join(hidden.facts)}
        if material.judge:
            meta["judge"] = list(material.judge)
        if tokenizer is None:
            meta["length_estimated"] = True
        return Sample(
            id=name,
            task=task.name,
            prompt=prompt,
            references=hidden.facts,
            level=f"{level // 1024}k" if level % 1024 == 0 else str(level),
            depth=depth,
            evidence=tuple(Evidence(segment=at, start=start, end=end) for start, end in spans),
            meta=meta,
        )

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """The mean of every length, and of all; there is no official mean. The report's heat map has the depths."""
        lines = []
        for task in dict.fromkeys(row.task for row in rows):
            of_task = [row for row in rows if row.task == task]
            for metric in dict.fromkeys(name for row in of_task for name in row.scored):
                groups: dict[str, list[Graded]] = {}
                for row in of_task:
                    for name in (task, f"{task} {row.sample.level}"):
                        groups.setdefault(name, []).append(row)
                lines += [_line(name, metric, groups[name]) for name in groups]
        return lines


def _line(name: str, metric: str, rows: Sequence[Graded]) -> Line:
    given = [row.scored[metric].value for row in rows if metric in row.scored]
    values = [value for value in given if value is not None]
    return Line(
        name=name,
        metric=metric,
        value=sum(values) / len(values) if values else None,
        n=len(values),
        missing=len(rows) - len(values),
        note="needs judge" if metric == JUDGE and not values else "",
        rows=list(rows),
    )


def tokens_of(prompt: Prompt, tokenizer: Tokenizer | None) -> int:
    """Tokens of the whole prompt as the model sees it; an estimate where the server keeps its tokenizer."""
    if tokenizer is None:
        return -(-len(prompt.text) // CHARACTERS_PER_TOKEN)
    return len(render(prompt, tokenizer, chat="template").token_ids or ())


def _plain_tokens(text: str, tokenizer: Tokenizer | None) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN) if tokenizer is None else len(tokenizer.encode(text))


def stride(n: int) -> int:
    """A step near the golden section of n that visits every one of n places before it repeats."""
    step = max(1, round(n * 0.618))
    while any(step % d == 0 and n % d == 0 for d in range(2, step + 1)):
        step += 1
    return step
