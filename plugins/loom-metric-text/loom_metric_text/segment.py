"""Chinese text to words by jieba, accurate mode. Imports jieba on use; its dictionary is read once a process.

The tokenizer is our own, so words that another part of the program adds to jieba's global dictionary change no score.
"""

from __future__ import annotations

import functools
import logging
import warnings
from typing import Any

from loom_metric_text.normalise import chinese


@functools.cache
def _tokenizer() -> Any:
    with warnings.catch_warnings():
        # jieba 0.42.1 is of 2020: newer Pythons warn about its escapes and its resource look-up.
        warnings.simplefilter("ignore")
        import jieba  # type: ignore[import-untyped]

    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    tokenizer.initialize()
    return tokenizer


def words(text: str) -> list[str]:
    """The words of jieba 0.42.1 (`cut_all=False`), white space and punctuation included."""
    return _tokenizer().lcut(text) if text else []


@functools.lru_cache(maxsize=65536)
def _normal(word: str) -> str:
    """`normalise.chinese` of a word; words recur."""
    return chinese(word)


def normal_words(text: str) -> list[str]:
    """The words, each normalised by `normalise.chinese`; those that vanish are dropped."""
    return [word for word in map(_normal, words(text)) if word]


def spaced(text: str) -> str:
    """The words joined by spaces, which makes them words for an English scorer."""
    return " ".join(words(text))
