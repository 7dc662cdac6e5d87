"""A fast tokenizer of transformers as loom's `Tokenizer`. Text to ids and back, exactly; knows no model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from loom_core.api import Json, ModelError, digest
from loom_server_hf.template import ChatTemplate

PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")


class HFTokenizer:
    """Wraps a fast tokenizer. Raises ModelError for a slow one, which cannot say where its tokens lie in the text.

    variables: values for those of its chat template. lead_ids: what its post-processor puts in front of a text (BOS, or
    a prefix such as `[gMASK]<sop>`); what it puts behind is an end, which no prompt has.
    """

    def __init__(self, tokenizer: Any, *, name: str = "", variables: Mapping[str, Json] | None = None) -> None:
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
        self.lead_ids = _in_front(with_special, plain)
        self.adds_bos: bool = bos is not None and self.lead_ids[:1] == (bos,)
        self.eos_id: int | None = tokenizer.eos_token_id
        self.digest = digest(self._content())
        self.control_tokens = tuple(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)
        self._added = frozenset(tokenizer.added_tokens_decoder)
        template: str | None = tokenizer.get_chat_template() if tokenizer.chat_template else None
        self._template: ChatTemplate | None = None
        if template:
            self._template = ChatTemplate(tokenizer, template, variables or {}, name=name)
        elif variables:
            raise ModelError(
                "there is no chat template to give variables to", where=name, hint="leave the model option template out"
            )
        self.template_digest = self._template.digest if self._template is not None else ""
        self.folds_system = self._template is not None and self._template.folds

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

        A system message that the template refuses or drops stands at the head of the user's turn (`folds_system`).
        Raises ModelError with the template's own words where it refuses the messages.
        """
        return self._template(messages) if self._template is not None else None

    @cached_property
    def turn_end(self) -> int | None:
        """The token that the chat template puts behind an assistant's message; None where that is none of its own.

        As the last message it may end otherwise than before a further turn (gpt-oss): the last one decides.
        """
        for tail in self._template.behind_an_answer() if self._template is not None else ():
            for token in self.encode(tail):
                if token in self._added and token != self.bos_id and self._tokenizer.decode([token]).strip():
                    return token
                if self._tokenizer.decode([token]).strip():
                    break
        return None

    def name_of(self, token: int) -> str:
        """A token as the vocabulary writes it."""
        return str(self._tokenizer.convert_ids_to_tokens(token))

    def _content(self) -> dict[str, Any]:
        """What decides ids: the serialised tokenizer, less the settings of a single call, and specials."""
        backend = json.loads(self._tokenizer.backend_tokenizer.to_str())
        backend.pop("truncation", None)
        backend.pop("padding", None)
        return {"backend": backend, "bos": self.bos_id, "adds_bos": self.adds_bos, "eos": self.eos_id}


def load_tokenizer(
    path: Path,
    config: Mapping[str, Any],
    *,
    name: str,
    trust_remote_code: bool = False,
    variables: Mapping[str, Json] | None = None,
) -> HFTokenizer:
    """The tokenizer of a model folder: the one AutoTokenizer gives. Raises ModelError with the reason.

    AutoTokenizer imports torch; a Llama folder whose tokenizer is a plain tokenizer.json needs no such choice of class.
    name: the model's name, by which transformers knows a few hub models whose tokenizer class is recorded wrongly.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        if _is_plain(path, config):
            plain = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
            return HFTokenizer(plain, name=name, variables=variables)
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
            hint="check its files, or save it again: tokenizer.save_pretrained(FOLDER)",
        ) from error
    return HFTokenizer(tokenizer, name=name, variables=variables)


def _in_front(with_special: Sequence[int], plain: Sequence[int]) -> tuple[int, ...]:
    """What comes before a text's own ids where a tokenizer adds its special tokens."""
    n = len(plain)
    start = next((i for i in range(len(with_special) - n + 1) if list(with_special[i : i + n]) == list(plain)), 0)
    return tuple(with_special[:start])


def _is_plain(path: Path, config: Mapping[str, Any]) -> bool:
    """True where AutoTokenizer is known to choose the plain class: checked for this one architecture only."""
    settings = path / "tokenizer_config.json"
    if config.get("model_type") != "llama" or not (path / "tokenizer.json").is_file() or not settings.is_file():
        return False
    values = json.loads(settings.read_text("utf-8"))
    return values.get("tokenizer_class") in PLAIN_CLASSES and "auto_map" not in values
