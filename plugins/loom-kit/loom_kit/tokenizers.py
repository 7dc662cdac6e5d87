"""Tokenizers for tests of lengths: words, the embedded model's own, and two of large models. Knows no benchmark.

With `doubles.ToyTokenizer` (bytes) the first two are three of very different grain.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Literal

from loom_parity.tokenizers import embedded_tokenizer as embedded_tokenizer

from loom_core.api import Json
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


def _byte_names() -> Mapping[int, str]:
    """A printable character for each byte, as GPT-2's encoder.py names them: itself, or the next one above 255."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


BYTES = _byte_names()
Likeness = Literal["gpt-4", "llama-3"]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How both cut a text into pieces. Sources: openai/tiktoken, tiktoken_ext/openai_public.py (cl100k_base, as it was
first written there); meta-llama/llama3, llama/tokenizer.py."""
RANKS_FILE = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
"""The name under which tiktoken keeps the tokens of cl100k_base: sha1 of their address."""
SIGNS: Mapping[Likeness, Sequence[str]] = {
    "gpt-4": ("<|endoftext|>",),
    "llama-3": ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
}
LLAMA_3_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def cl100k_ranks() -> Mapping[bytes, int] | None:
    """The tokens of cl100k_base and their ranks, from a cache of tiktoken at hand: TIKTOKEN_CACHE_DIR, or the one that
    the distribution llama-index-core brings. None where there is neither."""
    folders = [Path(os.environ["TIKTOKEN_CACHE_DIR"])] if os.environ.get("TIKTOKEN_CACHE_DIR") else []
    with suppress(metadata.PackageNotFoundError):
        folders += [
            Path(str(file.locate())).parent
            for file in metadata.files("llama-index-core") or ()
            if file.name == RANKS_FILE
        ]
    for folder in folders:
        if (file := folder / RANKS_FILE).is_file():
            rows = (line.split() for line in file.read_bytes().splitlines())
            return {b64decode(token): int(rank) for token, rank in rows}
    return None


def write_model_folder(folder: Path, like: Likeness, ranks: Mapping[bytes, int]) -> Path:
    """A model folder that can be described and not run: a fast tokenizer of cl100k_base's tokens, a small Llama's
    configuration, and a file of weights that holds none.

    ranks: as `cl100k_ranks` gives them. like: "gpt-4" is cl100k_base itself, without a chat template; "llama-3" has the
    BOS and the turns of Llama 3, whose own tokens are these and 28,000 more. A pair is merged where both together are a
    token, the lowest rank first, which is tiktoken's rule. Returns the folder.
    """
    signs = SIGNS[like]
    first = max(ranks.values()) + 1
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    turns = {"bos_token": signs[0], "eos_token": signs[-1], "chat_template": LLAMA_3_TEMPLATE}
    rest = turns if like == "llama-3" else {"eos_token": signs[0]}
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": first + len(signs),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1 << 18,
        "eos_token_id": first + len(signs) - 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("tokenizer.json", _tokenizer(like, ranks)),
        ("tokenizer_config.json", {**kind, **rest}),
        ("config.json", config),
    ):
        (folder / name).write_text(json.dumps(content), "utf-8")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def _tokenizer(like: Likeness, ranks: Mapping[bytes, int]) -> Mapping[str, Json]:
    """The content of tokenizer.json."""
    names = {token: "".join(BYTES[byte] for byte in token) for token in ranks}
    signs = SIGNS[like]
    merges = [
        [names[token[:at]], names[token[at:]]]
        for token in sorted(ranks, key=lambda token: ranks[token])
        for at in range(1, len(token))
        if token[:at] in ranks and token[at:] in ranks
    ]
    first = max(ranks.values()) + 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    begin = {"SpecialToken": {"id": signs[0], "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "added_tokens": [{"id": first + i, "content": sign, **flags} for i, sign in enumerate(signs)],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, text],
            "pair": [begin, text, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {signs[0]: {"id": signs[0], "ids": [first], "tokens": [signs[0]]}},
        }
        if like == "llama-3"
        else None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "ignore_merges": True,
            "vocab": {names[token]: rank for token, rank in ranks.items()},
            "merges": merges,
        },
    }
