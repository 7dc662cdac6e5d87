"""What the fable plugin registers: the benchmark, its metrics, its augmentations."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from loom_bench_fable import AgainOptions, FableOptions, HeadOptions, JudgedOptions
from loom_core.api import (
    BenchmarkBase,
    Data,
    Generation,
    JudgeSpec,
    Judging,
    Prompt,
    Response,
    Sample,
    Scored,
    Task,
    Tokenizer,
    Turn,
    UsageError,
    context_indices,
    segment,
    with_texts,
)

WORDS = ("fox", "crow", "grape", "river", "stone", "lamp", "wolf", "cheese", "hare", "night")


class Fable(BenchmarkBase):
    """Questions in groups that share a context; see `FableOptions`."""

    def __init__(self, options: FableOptions) -> None:
        self._options = options

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """One task as plain text, one through the chat template."""
        metrics = {
            "calm": ("fable_exact",),
            "moody": ("fable_exact", "fable_moody"),
            "judged": ("fable_judged", "fable_exact"),
        }[self._options.mood]
        generation = Generation(max_tokens=16)
        tell = Task(
            name="tell",
            version="1",
            capability="reasoning",
            metrics=metrics,
            generation=generation,
            chance=0.0,
            judge=JudgeSpec(name="fable", version="1", agents=2) if self._options.mood == "judged" else None,
        )
        return (replace(tell, chat="completion"), replace(tell, name="chat"))

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """Contexts grow from group to group."""
        for i in range(self._options.n):
            if task.name == "chat" and i == self._options.refusing:
                raise UsageError("no fable is that long", where=f"question {i}", hint="ask for fewer words")
            group = i // self._options.per_context
            draw = random.Random(f"{self._options.seed} {group}")
            words = [draw.choice(WORDS) for _ in range(self._options.words + 5 * group)]
            parts = (
                segment("instruction", "Read the fable.\n"),
                segment("context", " ".join(words)),
                segment("question", f"\nWhat is number {i}? "),
            )
            yield Sample(
                id=f"q{i}",
                task=task.name,
                prompt=Prompt(segments=parts),
                references=(str(i * 7),),
                level="short" if group % 2 else "long",
                cluster=f"fable {group}",
            )

    def follow_up(self, sample: Sample, responses: Sequence[Response]) -> Turn | None:
        """Ask again with the answers so far, until the turns are over."""
        if sample.id == f"q{self._options.deadly}":
            os.kill(os.getpid(), signal.SIGKILL)
        if sample.id == f"q{self._options.raising}":
            raise ValueError("this fable has no moral")
        if len(responses) >= self._options.turns:
            return None
        said = segment("question", f"{responses[-1].text}. Again, turn {len(responses)}? ")
        return Turn(prompt=Prompt(segments=(*sample.prompt.segments, said)), generation=Generation(max_tokens=8))


class Exact:
    """1 if the answer is the reference."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """Compare without the space around."""
        return Scored(value=float(prediction.strip() == sample.references[0]), extracted=prediction.strip())


class Moody:
    """1 for every answer but that of q1, over which it raises."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """Raises for q1, and tells a secret."""
        if sample.id == "q1":
            raise RuntimeError(f"no mood for {sample.id}: {os.environ.get('FABLE_API_KEY', '')}")
        return Scored(value=1.0)


class Judged:
    """A mark by two agents: one retells the fable, the other marks the answer with the tale before it."""

    def __init__(self, options: JudgedOptions | None = None) -> None:
        self._best = (options or JudgedOptions()).best

    def score(self, prediction: str, sample: Sample) -> Judging:
        """The mark over the best mark; raises where the reply is no number."""
        short = Generation(max_tokens=8)
        tale = yield Turn(
            prompt=Prompt(segments=(segment("question", f"Retell: {sample.prompt.context}"),)), generation=short
        )
        said = segment("question", f"Tale: {tale.text}\nMark {prediction!r} of {sample.id}.")
        mark = yield Turn(prompt=Prompt(segments=(said,)), generation=short)
        return Scored(value=int(mark.text) / self._best, extracted=mark.text)


class Augmentation:
    """A prompt augmentation that holds nothing."""

    def __init__(self, options: Any) -> None:
        self._options = options

    def open(self, tokenizer: Tokenizer | None) -> AbstractContextManager[None]:
        """Nothing to acquire."""
        return nullcontext()


class Head(Augmentation):
    """Keeps the first share of each context."""

    _options: HeadOptions

    def rewrite(self, prompt: Prompt, tokenizer: Tokenizer | None, *, chat: str = "template") -> Prompt:
        """Cut at a character."""
        texts = {i: prompt.segments[i].text for i in context_indices(prompt)}
        return with_texts(prompt, {i: text[: int(len(text) * self._options.keep)] for i, text in texts.items()})


class Meddle(Augmentation):
    """Changes the question, which no augmentation may."""

    def rewrite(self, prompt: Prompt, tokenizer: Tokenizer | None, *, chat: str = "template") -> Prompt:
        """Another question."""
        last = len(prompt.segments) - 1
        return with_texts(prompt, {last: "What else? "})


class Leak(Augmentation):
    """Tells a secret everywhere it can."""

    def rewrite(self, prompt: Prompt, tokenizer: Tokenizer | None, *, chat: str = "template") -> Prompt:
        """Print it, and raise it."""
        secret = os.environ.get("FABLE_API_KEY", "")
        print("leaking", secret, flush=True)
        print("leaking", secret, file=sys.stderr, flush=True)
        raise RuntimeError(f"refused with key {secret}")


class Again:
    """Asks several times; the answer is the first, and how often it asked."""

    def __init__(self, options: AgainOptions) -> None:
        self._options = options

    def solve(self, turn: Turn) -> Generator[Turn, Response, str]:
        """Each call sees the answer before."""
        texts: list[str] = []
        for number in range(self._options.calls):
            more = (segment("question", f"(call {number}, before: {texts[-1]}) "),) if texts else ()
            response = yield replace(turn, prompt=Prompt(segments=(*turn.prompt.segments, *more)))
            texts.append(response.text)
        return "|".join(texts)


class Stuck:
    """A strategy with a bug."""

    def __init__(self, options: Any) -> None:
        self._options = options

    def solve(self, turn: Turn) -> Generator[Turn, Response, str]:
        """One call, then an error."""
        yield turn
        raise KeyError("second step")
