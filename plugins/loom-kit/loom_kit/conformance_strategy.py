"""What every strategy must fulfil: it asks, it ends, it answers with text, and no job changes another.

Strategies are driven with made-up replies. Knows the contract of strategies; knows no strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from loom_parity.contract import answer

from loom_core.contract.errors import LoomError
from loom_core.contract.guard import described
from loom_core.contract.options import build
from loom_core.contract.protocols import MOST_CALLS, ModelCard
from loom_core.contract.specs import AugmentationSpec
from loom_core.contract.types import Generation, Prompt, Turn
from loom_core.doubles.server import ToyTokenizer
from loom_kit.conformance_prompt import prompts
from loom_kit.rows import NotChecked, Row, attempt, reason

WINDOW = 16_384
REPLIES = ("", "unanswerable", "Yes", "1", "None of the passages helps. " * 40, "[1] [2] 3, 4\n\n- 5", "答案 \x00")
"""What a model may reply, to everything it is asked."""


@dataclass
class Driven:
    """A strategy as the kit runs it, opened once for many jobs."""

    make: Callable[[], Any]

    def open(self, stack: ExitStack) -> Any:
        """A fresh strategy, opened where it has something to open."""
        made = self.make()
        if opened := getattr(made, "open", None):
            card = ModelCard(name="toy", path="toy", digest="toy", window=WINDOW, tokenizer=ToyTokenizer())
            stack.enter_context(opened(card))
        return made


def check_strategy(spec: AugmentationSpec, factory: Callable[[Any], Any]) -> Iterator[Row]:
    """One row a rule. factory: from options to the strategy, which is checked with its default options."""
    name = spec.name
    try:
        driven = Driven(partial(factory, build(spec.options, {}, owner=name)))
        with ExitStack() as stack:
            driven.open(stack)
    except LoomError as error:
        yield Row(name, "opens", True, reason(error), checked=False)
        return
    except Exception as error:  # noqa: BLE001 - whatever a strategy raises is its result
        yield Row(name, "opens", False, f"raised {reason(error)}")
        return
    yield attempt(name, f"asks, and ends within {MOST_CALLS} calls with text", partial(_ends, driven))
    yield attempt(name, "keeps nothing from job to job", partial(_stateless, driven))
    yield attempt(name, "jobs may run side by side", partial(_interleaved, driven))


def _turn(prompt: Prompt) -> Turn:
    return Turn(prompt=prompt, generation=Generation(max_tokens=32))


def _solve(strategy: Any, prompt: Prompt, reply: str) -> Iterator[tuple[str, ...]]:
    """("turn", its prompt) of each call, then ("answer", it); raises AssertionError for what is not a strategy."""
    turns = strategy.solve(_turn(prompt))
    assert isinstance(turns, Generator), f"solve returned a {type(turns).__name__}, not a generator of turns"
    calls, said = 0, None
    try:
        while True:
            turn = turns.send(said)
            assert isinstance(turn, Turn), f"yielded a {type(turn).__name__}, not a Turn"
            assert turn.prompt.text.strip(), "asks the model nothing: the prompt of a turn is empty"
            assert turn.generation.max_tokens > 0, f"asks for max_tokens={turn.generation.max_tokens}"
            calls += 1
            assert calls <= MOST_CALLS, f"asks more than {MOST_CALLS} times when the model says {reply[:20]!r}"
            yield "turn", turn.prompt.text
            said = answer(reply)
    except StopIteration as end:
        text = end.value
    assert calls, f"answers {text!r} without asking the model"
    assert isinstance(text, str), f"the answer is {text!r}, a {type(text).__name__}, not a string"
    yield "answer", text


def _guarded(strategy: Any, what: str, prompt: Prompt, reply: str) -> list[tuple[str, ...]]:
    try:
        return list(_solve(strategy, prompt, reply))
    except LoomError:
        return [("refused",)]
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error
    except Exception as error:
        raise AssertionError(
            f"{what}: raised {described(error)} when the model says {reply[:20]!r}: models say anything"
        ) from error


def _ends(driven: Driven) -> None:
    refused = 0
    given = prompts()
    with ExitStack() as stack:
        strategy = driven.open(stack)
        for what, prompt in given.items():
            for reply in REPLIES:
                refused += _guarded(strategy, what, prompt, reply) == [("refused",)]
    if refused == len(given) * len(REPLIES):
        raise NotChecked("it refuses every prompt of the kit, with a message")


def _stateless(driven: Driven) -> None:
    given = prompts()
    with ExitStack() as stack:
        strategy = driven.open(stack)
        first = [_guarded(strategy, what, prompt, "Yes") for what, prompt in given.items()]
        again = [_guarded(strategy, what, prompt, "Yes") for what, prompt in reversed(given.items())][::-1]
        other = driven.open(stack)
        fresh = [_guarded(other, what, prompt, "Yes") for what, prompt in given.items()]
    assert first == again == fresh, "the same question and replies give other calls: state between jobs, or chance"


def _interleaved(driven: Driven) -> None:
    """Two jobs are advanced in turns, as a run does."""
    given = list(prompts().items())[:2]
    with ExitStack() as stack:
        strategy = driven.open(stack)
        alone = [_guarded(strategy, what, prompt, "Yes") for what, prompt in given]
        if [("refused",)] in alone:
            raise NotChecked("it refuses a prompt of the kit, with a message")
        running = [_solve(strategy, prompt, "Yes") for _, prompt in given]
        seen: list[list[tuple[str, ...]]] = [[], []]
        for _ in range(2 * MOST_CALLS + 2):
            for place, job in enumerate(running):
                if (step := next(job, None)) is not None:
                    seen[place].append(step)
    assert seen == alone, "two jobs that run side by side get other calls: keep a job's state in its own generator"
