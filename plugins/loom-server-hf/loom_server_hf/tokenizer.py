"""A fast tokenizer of transformers as loom's `Tokenizer`. Text to ids and back, exactly; knows no model.

A chat template that asks for today's date gets a fixed one: the same prompt must have the same key tomorrow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from loom_core.errors import ModelError
from loom_core.keys import digest

TEMPLATE_DATE = datetime(2024, 7, 26)
"""The date that templates see: the one Llama 3.1's template itself falls back to."""

DATE_LETTERS = "aAbBdHIjmMpSyY"

PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")


class HFTokenizer:
    """Wraps a fast tokenizer. Raises ModelError for a slow one, which cannot say where its tokens lie in the text."""

    def __init__(self, tokenizer: Any, *, name: str = "") -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"the tokenizer {type(tokenizer).__name__} is a slow one",
                where=name,
                why="it cannot tell which characters a token covers, which spans and truncation need",
                hint="convert it to a tokenizer.json with transformers, and save that beside the model",
            )
        self._tokenizer, self._name = tokenizer, name
        bos = tokenizer.bos_token_id
        with_special, plain = self.encode("a", special=True), self.encode("a")
        self.bos_id: int | None = bos
        self.adds_bos: bool = bos is not None and with_special[:1] == [bos] and plain[:1] != [bos]
        self.eos_id: int | None = tokenizer.eos_token_id
        self.digest = digest(self._content())
        template: str | None = tokenizer.get_chat_template() if tokenizer.chat_template else None
        self.template_digest = hashlib.sha256(template.encode()).hexdigest() if template else ""
        self._template = None if template is None else with_fixed_date(template)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids. special: add what the tokenizer adds by itself (usually BOS)."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return ids

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids without specials, and the character span of each.

        The spans leave no gap: some tokenizers trim the space that a token begins with from its span; it is given
        back. Tokens that share one character share its span.
        """
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans, done = [], 0
        for start, end in encoded["offset_mapping"]:
            spans.append((min(start, done), max(end, min(start, done))))
            done = max(done, end)
        return encoded["input_ids"], spans

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens; no space is cleaned up."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The messages through the chat template, up to where the assistant's turn begins; None without a template.

        Raises ModelError with the template's own words where it refuses the messages (no system role, for example).
        """
        if self._template is None:
            return None
        from jinja2 import TemplateError

        try:
            text: str = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=True,
            )
        except (TemplateError, ValueError) as error:
            raise ModelError(
                "the chat template refuses these messages",
                where=self._name,
                why=f"{error}; roles: {', '.join(m['role'] for m in messages)}",
                hint="use a prompt template of your own for the task, or a model whose template takes these roles",
            ) from error
        return text

    def _content(self) -> dict[str, Any]:
        """What decides ids: the serialised tokenizer, less the settings of a single call, and specials."""
        backend = json.loads(self._tokenizer.backend_tokenizer.to_str())
        backend.pop("truncation", None)
        backend.pop("padding", None)
        return {"backend": backend, "bos": self.bos_id, "adds_bos": self.adds_bos, "eos": self.eos_id}


def load_tokenizer(path: Path, config: Mapping[str, Any], *, name: str, trust_remote_code: bool = False) -> HFTokenizer:
    """The tokenizer of a model folder: the one AutoTokenizer gives. Raises ModelError with the reason.

    AutoTokenizer imports torch; a Llama folder whose tokenizer is a plain tokenizer.json needs no such choice of class.
    name: the model's name, by which transformers knows a few hub models whose tokenizer class is recorded wrongly.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        if _is_plain(path, config):
            return HFTokenizer(PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True), name=name)
        from transformers import AutoConfig, AutoTokenizer

        full = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, local_files_only=True)
        full._name_or_path = name
        tokenizer = AutoTokenizer.from_pretrained(
            path, config=full, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            "the tokenizer cannot be loaded",
            where=str(path),
            why=f"{type(error).__name__}: {error}".splitlines()[0],
            hint="check its files, or save it anew: tokenizer.save_pretrained(FOLDER)",
        ) from error
    return HFTokenizer(tokenizer, name=name)


def with_fixed_date(template: str) -> str:
    """The template, with its own `strftime_now` (a macro that shadows the clock) where it asks for the date."""
    if "strftime_now" not in template:
        return template
    filters = "".join(f"|replace('%{letter}', '{TEMPLATE_DATE.strftime('%' + letter)}')" for letter in DATE_LETTERS)
    # The empty expression keeps the tag before it from swallowing a line break that the template begins with.
    return f"{{% macro strftime_now(form) %}}{{{{ form{filters} }}}}{{% endmacro %}}{{{{ '' }}}}{template}"


def _is_plain(path: Path, config: Mapping[str, Any]) -> bool:
    """True where AutoTokenizer is known to choose the plain class: checked for this one architecture only."""
    settings = path / "tokenizer_config.json"
    if config.get("model_type") != "llama" or not (path / "tokenizer.json").is_file() or not settings.is_file():
        return False
    values = json.loads(settings.read_text("utf-8"))
    return values.get("tokenizer_class") in PLAIN_CLASSES and "auto_map" not in values
