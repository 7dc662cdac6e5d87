"""Text that came from outside, as people may be shown it. Knows dangerous characters; knows no terminal and no report.

Texts of models, endpoints, plugins and data sets may hold anything: `visible` makes what would act on a page or a
terminal readable instead.
"""

from __future__ import annotations

import re

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with control characters, direction overrides and lone surrogates spelt out, e.g. ⟨U+202E⟩.

    Line feeds and tabs stay; a carriage return before a line feed is dropped.
    """
    return _INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text.replace("\r\n", "\n"))


def escaped(json_text: str) -> str:
    """JSON with the same characters as escapes: the same values, and nothing that acts on a terminal."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)


def one_line(text: str, limit: int = 200) -> str:
    """A visible text on one line, cut at the end."""
    line = " ".join(visible(text[: 4 * limit]).split())
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"
