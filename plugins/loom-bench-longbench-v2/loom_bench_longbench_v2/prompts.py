"""The authors' templates filled with a record, their way: placeholders replaced one after the other, everywhere.

So a text that itself holds "$Q$" gets the question there too. Source: THUDM/LongBench, pred.py. Knows text only.
"""

from __future__ import annotations

from collections.abc import Mapping

from loom_core.api import Json, Prompt, SegmentKind, from_parts, segment

DOCUMENT, THOUGHTS = "$DOC$", "$COT$"
FIELDS: Mapping[str, str] = {
    "$Q$": "question",
    "$C_A$": "choice_A",
    "$C_B$": "choice_B",
    "$C_C$": "choice_C",
    "$C_D$": "choice_D",
}
"""In the authors' order. The document comes before them, the thoughts after them."""


def fill(template: str, record: Mapping[str, Json]) -> Prompt:
    """The prompt in segments; the document is the context, as often as the template asks for it."""
    texts = [_filled(part, record) for part in template.split(DOCUMENT)]
    document = _filled(record["context"].strip(), record)
    parts: list[tuple[SegmentKind, str]] = [("instruction", texts[0])]
    for text in texts[1:]:
        parts += [("context", document), ("question", text)]
    if len(texts) == 1:
        parts = [("question", texts[0])]
    return from_parts(parts)


def question(template: str, record: Mapping[str, Json]) -> str:
    """The second call's text, but for the thoughts."""
    return _filled(template.replace(DOCUMENT, record["context"].strip()), record)


def with_thoughts(text: str, thoughts: str) -> Prompt:
    """The second call: the model's own thoughts in the place the template has for them."""
    return Prompt(segments=(segment("question", text.replace(THOUGHTS, thoughts.strip())),))


def _filled(text: str, record: Mapping[str, Json]) -> str:
    for placeholder, field in FIELDS.items():
        text = text.replace(placeholder, record[field].strip())
    return text
