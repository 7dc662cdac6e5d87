"""Text to the terms that BM25 counts. Knows scripts; knows no language, no stop words and no stems.

A term is a run of letters, digits and marks, after NFKC and case folding. Scripts that put no spaces between words
(Chinese, Japanese, Thai, Lao, Khmer, Burmese), and Korean, whose words carry endings, give overlapping pairs of
letters, as in Lucene's CJK analysis; a letter that stands alone is a term by itself.
"""

from __future__ import annotations

import re
import unicodedata

from loom_rag import UNSPACED

_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u0900-\u0963\u0966-\u0dff"
)
"""Marks, which belong to the letters around them and which a regular expression does not count as word characters."""
_LETTERWISE = rf"{UNSPACED}\uac00-\ud7af"
_TERM = re.compile(rf"(?P<letters>[{_LETTERWISE}]+)|[^\W{_LETTERWISE}](?:[^\W{_LETTERWISE}]|[{_MARKS}])*")


def terms(text: str, *, pairs: bool = True) -> list[str]:
    """The terms of a text, in order. pairs: pairs of letters where a script has no spaces, else single letters."""
    found: list[str] = []
    for match in _TERM.finditer(unicodedata.normalize("NFKC", text).casefold()):
        run = match[0]
        if match["letters"] is None or len(run) == 1:
            found.append(run)
        elif pairs:
            found.extend(run[i : i + 2] for i in range(len(run) - 1))
        else:
            found.extend(run)
    return found
