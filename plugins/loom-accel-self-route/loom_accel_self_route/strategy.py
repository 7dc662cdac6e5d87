"""Self-Route: the model reads what was retrieved and may decline; then it reads everything. Knows turns, no retriever.

The first call goes through the arm's prompt augmentations (the retriever), the second does not.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from loom_accel_self_route.plugin import SelfRouteOptions
from loom_core.prompt import segment
from loom_core.types import Prompt, Response, Turn

DECLINED = "unanswerable"
REQUEST = (
    "\n\nThe text above may be only a part of the whole. If it does not hold what is needed for the answer, "
    f"reply with the single word {DECLINED} and nothing else.\n"
)
LEAST_TOKENS = 16
"""New tokens of the first call: a benchmark that allows two could never be told that its question is unanswerable."""


class SelfRoute:
    """The strategy `self-route`."""

    def __init__(self, options: SelfRouteOptions) -> None:
        self._options = options

    def solve(self, turn: Turn) -> Generator[Turn, Response, str]:
        """One call on the retrieved chunks; a second one on the whole context where the reply declines."""
        if not turn.prompt.context:
            return (yield turn).text
        limits = replace(turn.generation, max_tokens=max(turn.generation.max_tokens, LEAST_TOKENS))
        first = yield replace(turn, prompt=with_request(turn.prompt), generation=limits)
        if DECLINED not in first.text.casefold():
            return first.text
        return (yield replace(turn, augment=False)).text


def with_request(prompt: Prompt) -> Prompt:
    """The prompt with the request before what it puts into the assistant's mouth.

    The request is an instruction, not a part of the question: the retriever does not look for its words.
    """
    end = len(prompt.segments)
    while end and prompt.segments[end - 1].role == "assistant":
        end -= 1
    request = segment("instruction", REQUEST)
    return Prompt(segments=(*prompt.segments[:end], request, *prompt.segments[end:]))
