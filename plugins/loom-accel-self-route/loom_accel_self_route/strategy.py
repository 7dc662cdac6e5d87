"""Self-Route: the model reads what was retrieved and may decline; then it reads everything. Knows turns, no retriever.

The first call goes through the arm's prompt augmentations (the retriever), the second does not.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import replace

from loom_accel_self_route.plugin import SelfRouteOptions
from loom_core.api import Prompt, Response, Turn, segment

DECLINED = "unanswerable"
REQUEST = (
    "\n\nThe text above may be only a part of the whole. If it does not hold what is needed for the answer, "
    f"reply with the single word {DECLINED} and nothing else.\n"
)
_AROUND = " \t.!*_`'\"“”‘’()[]#>-"
_VERDICT = re.compile(
    rf"(?:(?:final )?answer:\W*)?(?:(?:the|this) (?:question|query|answer|task) is )?{DECLINED}"
    r"(?:\W*|\s*[.,:;!(–—-].*|\s+(?:because|since|as|based|given|from|with|by)\b.*)"
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
        if not declines(first.text):
            return first.text
        return (yield replace(turn, augment=False)).text


def declines(reply: str) -> bool:
    """Whether a reply's own verdict is that the text does not hold the answer.

    Its first or its last line says so: the word alone, at the line's head before a reason, or as what the question is.
    The word within a sentence, quoted or in a repetition of the request, is not a verdict.
    """
    lines = [line for line in map(_plain, reply.splitlines()) if line]
    return bool(lines) and any(_VERDICT.fullmatch(line) for line in (lines[0], lines[-1]))


def _plain(line: str) -> str:
    """A line in lower case without the marks around it."""
    return " ".join(line.casefold().strip(_AROUND).split())


def with_request(prompt: Prompt) -> Prompt:
    """The prompt with the request before what it puts into the assistant's mouth.

    The request is an instruction, not a part of the question: the retriever does not look for its words.
    """
    end = len(prompt.segments)
    while end and prompt.segments[end - 1].role == "assistant":
        end -= 1
    request = segment("instruction", REQUEST)
    return Prompt(segments=(*prompt.segments[:end], request, *prompt.segments[end:]))
