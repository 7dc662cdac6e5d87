"""Tokenizers for tests of lengths: words, and the embedded model's own where it is installed. Knows no benchmark.

With `doubles.ToyTokenizer` (bytes) these are three of very different grain.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence

from loom_parity.tokenizers import embedded_tokenizer as embedded_tokenizer

from loom_core.contract.protocols import Tokenizer
from loom_core.doubles.server import ToyTokenizer

PIECE = re.compile(r"\s?\w{1,12}|\s?[^\w\s]|\s")


class WordTokenizer:
    """One token a word (the space before it included), a sign or a white space; no BOS; a template that strips."""

    digest = "words"
    template_digest = "words template"
    bos_id: int | None = None
    adds_bos = False

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """A number made from each piece; `special` changes nothing."""
        return self.offsets(text)[0]

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The numbers and where their pieces are."""
        found = list(PIECE.finditer(text))
        return [zlib.crc32(match[0].encode("utf-8", "surrogatepass")) for match in found], [m.span() for m in found]

    def decode(self, ids: Sequence[int]) -> str:
        """Not possible: numbers are digests."""
        raise NotImplementedError("word numbers cannot be turned back into text")

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """Each message stripped, below its role."""
        return "".join(f"<{m['role']}>\n{m['content'].strip()}\n" for m in messages) + "<assistant>\n"


GRAINS = ("bytes", "words", "embedded")


def tokenizer_of(grain: str) -> Tokenizer | None:
    """One of the three by name; None where the embedded one is not installed."""
    made: Mapping[str, Callable[[], Tokenizer | None]] = {
        "bytes": ToyTokenizer,
        "words": WordTokenizer,
        "embedded": embedded_tokenizer,
    }
    return made[grain]()
