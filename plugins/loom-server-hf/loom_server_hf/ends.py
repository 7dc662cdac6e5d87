"""Which tokens end an answer: what generation config or config, the tokenizer and the chat template say, together.

Each of the three may name an end that the others lack (a chat model tuned from a base model keeps the base's config):
an answer that runs on past one of them holds turns that nobody asked for. Knows token ids; loads no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loom_server_hf.folder import ModelFolder
from loom_server_hf.tokenizer import HFTokenizer


@dataclass(frozen=True, slots=True)
class Ends:
    """The token ids that end an answer, and what a reader must know of how they were found."""

    ids: frozenset[int]
    notes: tuple[str, ...] = ()


def ends(configured: Any, tokenizer: HFTokenizer | None) -> Ends:
    """The union. configured: `eos_token_id` as a configuration holds it: an id, several, or None."""
    ids = set(configured if isinstance(configured, (list, tuple)) else () if configured is None else (configured,))
    if tokenizer is None:
        return Ends(frozenset(ids))
    notes = []
    for token, whose in (
        (tokenizer.eos_id, "the tokenizer's end"),
        (tokenizer.turn_end, "the chat template's end of a turn"),
    ):
        if token is not None and token not in ids:
            if ids:
                notes.append(
                    f"answers end at {tokenizer.name_of(token)} too, {whose}: the model's configuration lacks it"
                )
            ids.add(token)
    return Ends(frozenset(ids), tuple(notes))


def of_folder(folder: ModelFolder, values: Mapping[str, Any], tokenizer: HFTokenizer | None) -> Ends:
    """The ends of a model that is not loaded; values: its configuration's fields."""
    given = folder.generation_config.get("eos_token_id")
    text = folder.config.get("text_config") or {}
    for value in (given, text.get("eos_token_id"), folder.config.get("eos_token_id"), values.get("eos_token_id")):
        if value is not None:
            return ends(value, tokenizer)
    return ends(None, tokenizer)
