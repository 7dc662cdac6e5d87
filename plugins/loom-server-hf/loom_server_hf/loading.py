"""Loads a causal language model of transformers, whole and where it was asked for. Knows no request and no method."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from loom_core.api import ModelError
from loom_server_hf.card import Description, describe
from loom_server_hf.ends import ends
from loom_server_hf.engine import Engine
from loom_server_hf.lora import merge
from loom_server_hf.plugin import HFModelOptions, HFServerOptions
from loom_server_hf.recurrent import StateEngine, own_state
from loom_server_hf.session import HFSession


@contextmanager
def opened(model: str, options: HFModelOptions, server: HFServerOptions) -> Iterator[HFSession]:
    """A session on the loaded model; its memory is given back at the end. Raises ModelError where it cannot be had."""
    set_threads(server.threads)
    found = describe(model, options)
    device = choose_device(options.device)
    loaded = load(found, options, device)
    ending = end_ids(loaded, found.card.tokenizer)
    if options.lora:
        merge(loaded, options.lora)
    state = own_state(loaded)
    engine = StateEngine(loaded, state) if state else Engine(loaded, prefill_chunk=server.prefill_chunk)
    session = HFSession(engine, found.card, eos_ids=ending, batch=server.batch, share_prefix=server.share_prefix)
    del loaded, engine
    try:
        yield session
    finally:
        session.close()


def set_threads(threads: int | None) -> None:
    """Threads of torch in this process: the option's, else LOOM_THREADS, else torch's own choice."""
    text = os.environ.get("LOOM_THREADS", "")
    if threads is None and text.isdigit() and int(text) > 0:
        threads = int(text)
    if threads is not None:
        torch.set_num_threads(threads)


def choose_device(asked: str) -> torch.device:
    """The device by name; "auto" is the first GPU where there is one. Raises ModelError for a GPU that is not there."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(asked)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"there is no device {asked}",
            why=f"torch {torch.__version__} sees {torch.cuda.device_count()} CUDA device(s)",
            hint="device=cpu, or a torch built for CUDA and a visible GPU",
        )
    return device


def load(found: Description, options: HFModelOptions, device: torch.device) -> Any:
    """The model on its device, in evaluation mode, without gradients; every weight comes from the checkpoint."""
    path, name = str(found.folder.path), found.folder.name
    try:
        with no_progress_bar():
            config = AutoConfig.from_pretrained(
                path, trust_remote_code=options.trust_remote_code, local_files_only=True
            )
            override(config, found)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                config=config,
                dtype=getattr(torch, found.dtype),
                trust_remote_code=options.trust_remote_code,
                local_files_only=True,
                output_loading_info=True,
            )
        model, report = loaded
        check_complete(name, path, report)
        return model.to(device).eval().requires_grad_(False)
    except (ModelError, KeyboardInterrupt):
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{name} does not fit on {device}",
            why=str(error).splitlines()[0],
            hint="choose a smaller model, dtype=bfloat16, or another device",
        ) from error
    except Exception as error:
        raise ModelError(
            f"{name} cannot be loaded",
            where=path,
            why=f"{type(error).__name__}: {error}".strip().splitlines()[0],
            hint=_load_hint(error),
        ) from error


def override(config: Any, found: Description) -> None:
    """Apply the rotary parameters to a configuration, in place."""
    text = config.get_text_config()
    if found.positions.rope is not None:
        text.rope_parameters = dict(found.positions.rope)
    if found.positions.length is not None:
        text.max_position_embeddings = found.positions.length


def check_complete(name: str, path: str, report: Any) -> None:
    """Refuse a checkpoint that left weights at random values: its answers would be noise."""
    missing = sorted(report.get("missing_keys") or ())
    wrong = sorted(str(item) for item in report.get("mismatched_keys") or ())
    if missing or wrong:
        first = (missing or wrong)[0]
        raise ModelError(
            f"the checkpoint of {name} does not fill the model",
            where=path,
            why=f"{len(missing)} weights are missing and {len(wrong)} have another shape; the first is {first}",
            hint="give a checkpoint saved from the causal language model itself, head included",
        )


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The token ids that end an answer: of generation config, else config; with those of tokenizer and template."""
    for source in (getattr(model, "generation_config", None), model.config.get_text_config(), model.config):
        value = getattr(source, "eos_token_id", None)
        if value is not None:
            return ends(value, tokenizer).ids
    return ends(None, tokenizer).ids


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Loading is one step of many; its bar would tear the run's own."""
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _load_hint(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "install the package that is named, or give a checkpoint that is not quantized"
    if isinstance(error, (KeyError, ValueError)):
        return "the model may need a newer transformers: pip install --upgrade transformers"
    return "check that the checkpoint is whole and fits in memory"
