"""Thinking models: what a reply says before its answer, split off and counted. Knows text and marks, no model.

A run declares it (`thinking = "<think>,</think>"`, `thinking_budget = 4096`): the budget is added to each answer's
limit of tokens, and stop strings, which are meant for answers, are applied to the rest after the split only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from loom_core.contract.types import Generation, Response
from loom_core.serving.answering import first_stop

UNFINISHED = "thinking did not end within its limit: the answer is empty"
"""The remark on a reply without an answer; reports count it."""


MARKS = (
    "<think>",
    "</think>",
    "<thinking>",
    "</thinking>",
    "[THINK]",
    "[/THINK]",
    "◁think▷",
    "◁/think▷",
    "<|channel|>",
)
"""What models put around their thinking: an undeclared one in an answer is worth a word."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """What a run declares. begin, end: the marks around a model's thinking. budget: tokens allowed for it."""

    begin: str
    end: str
    budget: int = 0

    def limits(self, generation: Generation) -> Generation:
        """The limits of an answer with room to think. Its stop strings stay: `asked` takes them off."""
        return replace(generation, max_tokens=generation.max_tokens + self.budget)

    def split(self, response: Response, generation: Generation, count: Callable[[str], int] | None) -> Response:
        """The response with its thinking apart: text is what follows the end mark, up to a stop string.

        A reply without an end mark has no answer where it begins to think, or was cut short (many chat templates open
        the thinking themselves); any other is all answer. count: tokens of a text, None where no one can tell.
        """
        if response.finish == "error":
            return response
        text, thought = response.text, response.reasoning
        if thought is not None:
            # The server has split it; a reply that is all thinking was cut short in it.
            finished = bool(text.strip()) or response.finish == "stop"
        else:
            before, mark, after = text.partition(self.end)
            finished = bool(mark) or not (self.begin in text or response.finish == "length")
            if mark or not finished:
                thought, text = before.strip().removeprefix(self.begin).strip(), after.lstrip() if mark else ""
        if finished and (stop := first_stop(text, generation.stop)) is not None:
            text = text[: stop[0]]
        return replace(
            response,
            text=text if finished else "",
            reasoning=thought,
            n_reasoning=count(thought) if count is not None and thought is not None else None,
            notes=response.notes if finished else (*response.notes, UNFINISHED),
        )


def asked(generation: Generation) -> Generation:
    """The limits that a server is given: a stop string would end the thinking."""
    return replace(generation, stop=())


def marks(value: Any) -> str | None:
    """The setting `thinking`, checked: two marks with a comma between. Raises ValueError."""
    if value is None or value == "none":
        return None
    parts = value.split(",") if isinstance(value, str) else []
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise ValueError(f"expected a pair of marks, got {value!r} (write <think>,</think>)")
    return ",".join(part.strip() for part in parts)


def declared(setting: str | None, budget: int) -> Thinking | None:
    """What the settings `thinking` and `thinking_budget` say; None where the run's models do not think."""
    if setting is None:
        return None
    begin, _, end = setting.partition(",")
    return Thinking(begin, end, budget)
