"""What a benchmark brings to be compared with its authors' own program: cases, and who explains a difference.

The contract of `loom parity`: the authors' functions run in a process of their own, from a checkout that the user has;
loom's values are made here. Knows records and contracts; it starts no process, and no text of others lies here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from loom_core.contract.protocols import Benchmark, Data, Metric, Tokenizer
from loom_core.contract.types import Json, Sample, Scored, Task
from loom_core.data.access import Unavailable
from loom_core.serving.answering import answer as answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison: a function of the authors' with its argument, and loom's value of the same.

    kind: what is compared ("prompt", "score", "table", "samples", …). name: the task or rule, for counting. id: unique
    among the cases of one kind and name, and the same in every process; it goes into the certificate, so it holds no
    text of others. function: a key of `Parity.authors`. payload: its one argument, JSON. ours: loom's value, in the
    shape that the authors' function returns. tolerance: the greatest difference of two numbers that count as equal,
    absolute up to 1 and relative above; 0 asks for the same number.
    """

    kind: str
    name: str
    id: str
    function: str
    payload: Json
    ours: Callable[[], Json]
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityContext:
    """What an adapter makes its cases from.

    benchmark: opened with the options of the command line (an adapter may open others itself). tasks: those chosen.
    data: the benchmark's pinned files. tokenizer: of `--model`, None without. metrics: by name, every metric that a
    task names. root: the authors' checkout, for data that lies there. seed, limit: of the command line; limit counts
    the cases of one kind and name, None = all. missing: what could not be compared here and why, filled by `samples`
    and by adapters; the certificate names it.
    """

    benchmark: Benchmark
    tasks: tuple[Task, ...]
    data: Data
    root: Path
    tokenizer: Tokenizer | None = None
    lengths: tuple[int, ...] = ()
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    seed: int = 0
    limit: int | None = None
    missing: dict[str, str] = field(default_factory=dict)

    def random(self, name: str) -> random.Random:
        """Random numbers for `name`, by the seed: no other name, limit or task changes what is drawn."""
        return random.Random(f"parity {self.seed} {name}")

    def samples(self, task: Task) -> Iterator[Sample]:
        """The samples of a task, at most `limit`. Where its data is not at hand it ends, and `missing` says why."""
        made = self.benchmark.samples(task, self.data, self.tokenizer, self.lengths)
        try:
            yield from islice(made, self.limit)
        except Unavailable as error:
            self.missing[task.name] = str(error.what) + (f" ({error.where})" if error.where else "")

    def scored(self, task: Task, sample: Sample, *texts: str) -> Mapping[str, Scored]:
        """What the benchmark's own `score` makes of an answer (one text for each turn); metrics that ask a model have
        no value."""
        responses = [answer(text) for text in texts]
        metrics = {name: self.metrics[name] for name in task.metrics}
        found = self.benchmark.score(sample, responses, metrics)
        asked = Scored(value=None, detail={"why": "a model must be asked"})
        return {name: value if isinstance(value, Scored) else asked for name, value in found.items()}


class Parity(Protocol):
    """A benchmark's adapter to its authors' program; `BenchmarkSpec.parity` names the class, built without arguments.

    commit: the upstream commit that loom's rules were read from. files: the upstream files whose functions run, by
    path in the checkout. differences: known differences by short name: what differs, why, and which option turns it
    off.
    """

    commit: str
    files: tuple[str, ...]
    differences: Mapping[str, str]

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        """The authors' own functions by name, imported from the checkout at `root` (`upstream.module`).

        Called in a child process, again after a crash. Raise ImportError as it comes: loom says what to install.
        """

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """Prompts of the data at hand, real and generated answers, tables; lazily, the same for one seed."""

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """The name (in `differences`) of what these unequal values differ by; None where it is not known.

        A side that raised is `{"raises": "IndexError"}`.
        """


FULL_WIDTH = {**{code: code + 0xFEE0 for code in range(0x21, 0x7F)}, 0x20: 0x3000}
"""ASCII to its full-width forms; the space to the ideographic one."""
OTHER_SCRIPT = "答案是：Ответ — 正しい، جواب। ñçß"
LONG = 20_000
"""Characters of the very long answer, at least."""


def answer_variants(reference: str, rng: random.Random, *, others: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """(shape, text) of the answers that scorers must agree on, made from one reference.

    Right, wrong, partial; prose around it; other case and script, full-width forms, control characters; several
    answers; broken and whole JSON, fences; empty, very long; thinking aloud. others: further answers of the benchmark,
    which become wrong answers and lists. The shapes are the same in every process, and so are the texts for one `rng`.
    """
    words = reference.split() or [reference]
    wrong = rng.choice([text for text in others if text != reference] or [reference[::-1] + " not"])
    part = " ".join(words[: max(1, len(words) // 2)]) if len(words) > 1 else reference[: max(1, len(reference) // 2)]
    yield "right", reference
    yield "wrong", wrong
    yield "empty", ""
    yield "blank", " \n\t "
    yield from _partial(reference, part, words, rng)
    yield from _around(reference, wrong)
    yield from _script(reference, rng)
    yield from _several(reference, wrong, rng)
    yield from _marked(reference, wrong)
    yield "very long", (reference + " " + OTHER_SCRIPT + " ") * (1 + LONG // (len(reference) + len(OTHER_SCRIPT) + 2))
    yield "very long, right at the end", "so on and so forth " * (LONG // 19) + reference


def _partial(reference: str, part: str, words: list[str], rng: random.Random) -> Iterator[tuple[str, str]]:
    shuffled = rng.sample(words, len(words))
    place = rng.randrange(len(reference)) if reference else 0
    yield "partial", part
    yield "first character", reference[:1]
    yield "words shuffled", " ".join(shuffled)
    yield "one character off", reference[:place] + "~" + reference[place + 1 :]
    yield "without spaces", "".join(words)


def _around(reference: str, wrong: str) -> Iterator[tuple[str, str]]:
    yield "prose before", f"The answer is {reference}"
    yield "prose around", f"Let me see. The answer is: {reference}. I hope this helps!"
    yield "reason after", f"{reference}\n\nExplanation: it is not {wrong}, because the text says so."
    yield "answer label", f"Answer: {reference}"
    yield "final answer", f"First I thought of {wrong}.\nFinal answer: {reference}"
    yield "spaces around", f"\n\n   {reference} \t\r\n"
    yield "quoted", f'"{reference}"'
    yield "refusal", "I'm sorry, but I cannot answer that question."


def _script(reference: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    control = "".join(rng.choice(["\x00", "\x07", "\x1b", "\u200b", "\u00a0"]) + character for character in reference)
    yield "upper case", reference.upper()
    yield "lower case", reference.lower()
    yield "other case", reference.swapcase()
    yield "full-width", reference.translate(FULL_WIDTH)
    yield "other script", OTHER_SCRIPT
    yield "mixed script", f"{OTHER_SCRIPT}{reference}。"
    yield "control characters", control
    yield "combining marks", "".join(character + "\u0301" for character in reference)
    yield "line separators", "\u2028".join(reference.split(" ")) + "\x85"


def _several(reference: str, wrong: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    both = [reference, wrong]
    rng.shuffle(both)
    yield "two answers", " or ".join(both)
    yield "wrong, then right", f"{wrong}\n{reference}"
    yield "right, then wrong", f"{reference}\n{wrong}"
    yield "listed", f"1. {wrong}\n2. {reference}\n- {reference}"
    yield "repeated", " ".join([reference] * 5)
    yield "with commas", ", ".join([reference, wrong, reference])


def _marked(reference: str, wrong: str) -> Iterator[tuple[str, str]]:
    whole = json.dumps({"answer": reference}, ensure_ascii=False)
    yield "JSON", whole
    yield "JSON list", json.dumps([reference, wrong], ensure_ascii=False)
    yield "broken JSON", whole[:-1]
    yield "JSON with single quotes", f"{{'answer': '{reference}'}}"
    yield "fenced", f"```\n{reference}\n```"
    yield "fenced JSON", f"```json\n{whole}\n```"
    yield "open fence", f"```python\n{reference}"
    yield "bold", f"**{reference}**"
    yield "boxed", f"$\\boxed{{{reference}}}$"
    yield "tagged", f"<answer>{reference}</answer>"
    yield "thought", f"<think>Could it be {wrong}?</think>{reference}"
    yield "thinks without end", f"<think>It may be {reference}, or {wrong}"
    yield "end of thought only", f"it may be {wrong}</think>\n\n{reference}"
