"""The normalisers that the benchmarks' scorers use, as named rules. Knows strings only; splits no words.

Each says which benchmark it comes from. They differ in what looks alike: SQuAD's drops English articles and ASCII
punctuation, L-Eval's keeps case (so that the option A is no article), LIBRA's keeps articles, the Chinese one knows a
list of punctuation in which the opening brackets 《 and 〈 are missing.
"""

from __future__ import annotations

import re
import string

CJK_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿"
    "–—‘’‛“”„‟…‧﹏."
)
"""Punctuation that THUDM/LongBench (metrics.py) deletes from Chinese text, beside ASCII's. 《 and 〈 are not in it."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ASCII = str.maketrans("", "", string.punctuation)
_CHINESE = str.maketrans("", "", string.punctuation + CJK_PUNCTUATION)


def without_articles(text: str) -> str:
    """`a`, `an` and `the` as lower-case words, each replaced by a space."""
    return _ARTICLES.sub(" ", text)


def squad(text: str) -> str:
    """Lower case; ASCII punctuation deleted (not spaced); articles dropped; runs of white space become one space."""
    return " ".join(without_articles(text.lower().translate(_ASCII)).split())


def squad_with_case(text: str) -> str:
    """`squad` without lower-casing, as L-Eval's exact match has it: the option letter A must survive."""
    return " ".join(without_articles(text.translate(_ASCII)).split())


def russian(text: str) -> str:
    """Lower case; ASCII punctuation deleted; white space joined; no article is dropped (LIBRA)."""
    return " ".join(text.lower().translate(_ASCII).split())


def chinese(text: str) -> str:
    """Lower case; ASCII and `CJK_PUNCTUATION` deleted; all white space deleted (LongBench and its descendants)."""
    return "".join(text.lower().translate(_CHINESE).split())


def unpunctuated(text: str) -> str:
    """ASCII and `CJK_PUNCTUATION` deleted, nothing else: case and spaces stay (CLongEval's edit similarity)."""
    return text.translate(_CHINESE)


def first_line(text: str) -> str:
    """The first line after leading line feeds are dropped (LongBench: trec, triviaqa, samsum, lsht)."""
    return text.lstrip("\n").split("\n")[0]


def without_citations(text: str) -> str:
    """`[12]` and ` [12]` deleted, and every other `]` and ` |` with them (L-CiteEval, after ALCE)."""
    return re.sub(r" ?\[\d+", "", text).replace(" |", "").replace("]", "")
