"""Opens scoring models of transformers: an installed model's name, a folder, or a hub name. Knows no compression."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer
from transformers.utils import logging

from loom_core.api import ModelError, installed


def place_of(model: str) -> str:
    """The folder or hub name behind a name."""
    for found in installed().models:
        if found.spec.name == model and found.spec.server == "hf":
            return str(installed().load(found)())
    return str(Path(model).expanduser()) if Path(model).expanduser().exists() else model


def open_model(model: str, device: str, *, classifier: bool) -> tuple[Any, Any]:
    """(model in evaluation mode, fast tokenizer). Raises ModelError for what is missing or of the wrong kind."""
    place = place_of(model)
    local = Path(place).exists() or os.environ.get("LOOM_OFFLINE", "") not in ("", "0")
    endings = ("ForTokenClassification",) if classifier else ("ForCausalLM", "LMHeadModel")
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        config: Any = AutoConfig.from_pretrained(place, local_files_only=local)
        names = config.architectures or []
        if not any(str(name).endswith(endings) for name in names):
            raise ModelError(
                f"the scoring model is not a {'token classifier' if classifier else 'causal language model'}",
                where=f"model={model}",
                why=f"its configuration says {', '.join(names) or 'nothing of its kind'}",
                hint="give another model",
            )
        kind: Any = AutoModelForTokenClassification if classifier else AutoModelForCausalLM
        tokenizer: Any = AutoTokenizer.from_pretrained(place, local_files_only=local)
        loaded: Any = kind.from_pretrained(place, local_files_only=local).to(torch.device(device))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            "the scoring model cannot be opened",
            where=f"model={model}",
            why=f"{type(error).__name__}: {error}".splitlines()[0][:300],
            hint="give a folder or a hub name that can be reached",
        ) from error
    finally:
        if shown:
            bars.enable_progress_bar()
    if not tokenizer.is_fast:
        raise ModelError("the scoring model has a slow tokenizer", where=f"model={model}", why="it shows no offsets")
    return loaded.eval().requires_grad_(False), tokenizer


def pieces_of(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids without specials, and the character span of each."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
    return list(found["input_ids"]), [(int(start), int(end)) for start, end in found["offset_mapping"]]
