"""The vocabulary of RWKV's World models, from the rwkv package, as a loom tokenizer. Knows bytes, no model."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loom_core.api import ModelError

FILE = "rwkv_vocab_v20230424.txt"
END = 0
"""The id that ends a text; it stands for no bytes."""


class WorldTokenizer:
    """Greedy longest match over bytes. A token may hold part of a character; its span is then the whole character."""

    bos_id: int | None = None
    adds_bos = False
    eos_id: int | None = END
    template_digest = ""

    def __init__(self) -> None:
        found = importlib.util.find_spec("rwkv")
        if found is None or found.origin is None:
            raise ModelError("the package rwkv is not installed", hint="pip install rwkv")
        import rwkv.rwkv_tokenizer as module  # type: ignore[import-untyped]

        path = Path(found.origin).parent / FILE
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self._trie: Any = module.TRIE_TOKENIZER(str(path))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids; there are no special tokens to add."""
        ids: list[int] = self._trie.encodeBytes(text.encode("utf-8"))
        return ids

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and the character span of each."""
        ids = self.encode(text)
        # The character that each byte belongs to.
        owner = [place for place, char in enumerate(text) for _ in char.encode("utf-8")]
        spans, at = [], 0
        for token in ids:
            end = at + len(self._trie.idx2token[token])
            spans.append((owner[at], owner[end - 1] + 1))
            at = end
        return ids, spans

    def decode(self, ids: Sequence[int]) -> str:
        """Text without end tokens; bytes that are not a character, and ids that stand for none, are shown as such."""
        unknown = "\ufffd".encode()
        parts = [self._trie.idx2token.get(token, unknown) for token in ids if token != END]
        return b"".join(parts).decode("utf-8", errors="replace")

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """None: a checkpoint brings no chat template."""
        return None
