r"""The marks of a text that a judge reads made harmless: an answer under test must not be able to set its own mark.

A judge's reply is read by its shape: double brackets, the keys of a JSON object, a heading of the prompt. Where an
answer holds such a shape, one backslash is put into it (`[[7]]` is shown as `[\[7]\]`): the judge still sees every
character, a mark that it quotes is none, and `restored` gives the answer back. Knows texts and shapes; no judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

BRACKETS = (r"\[", r"\["), (r"\]", r"\]")
"""The places where a backslash parts double brackets: what comes before it, and after it."""


class Defused(NamedTuple):
    """A text as a judge is shown it, and how many places of it were defused."""

    text: str
    n: int

    @property
    def note(self) -> str:
        """What the record of a judgement says of it; empty where nothing was to be done."""
        return f"the answer under test: {self.n} mark shapes defused, each by a backslash" if self.n else ""


def defused(text: str, *, keys: Sequence[str] = (), headings: Sequence[str] = ()) -> Defused:
    r"""The text with one more backslash in every mark shape.

    keys: of a JSON object that a reply is read as (`"key"\:`); headings: of the judge's prompt, without their brackets
    (`[\Judgment]`).
    """
    return Defused(*_places(keys, headings, r"\\*").subn(lambda found: f"{found[0]}\\", text))


def restored(text: str, *, keys: Sequence[str] = (), headings: Sequence[str] = ()) -> str:
    """The text that was defused with the same keys and headings."""
    return _places(keys, headings, r"\\+").sub(lambda found: found[0][:-1], text)


def _places(keys: Sequence[str], headings: Sequence[str], slashes: str) -> re.Pattern[str]:
    """Where a backslash goes: after what is matched."""
    pairs = [*BRACKETS, *((f'"{re.escape(key)}"', r"\s*:") for key in keys)]
    pairs += [(r"\[", rf"\s*{re.escape(heading)}\s*\]") for heading in headings]
    return re.compile("|".join(f"(?:{before}){slashes}(?={after})" for before, after in pairs), re.IGNORECASE)
