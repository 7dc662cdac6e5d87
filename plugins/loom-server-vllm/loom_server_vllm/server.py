"""The server `vllm`: describes a model without vLLM, and starts the engine on it. Knows no request.

The card is read by the installed reader of models, so that prompts get the token ids that every other server sends.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from loom_core.api import ModelCard, UsageError, nearest, table
from loom_core.api.serving import EngineModelOptions, engines, readers
from loom_server_vllm.plugin import VllmOptions
from loom_server_vllm.session import VllmSession

OURS = {
    "model": "--model",
    "tensor_parallel_size": "tensor_parallel",
    "max_num_seqs": "max_batch",
    "gpu_memory_utilization": "memory",
    "enable_prefix_caching": "prefix_caching",
    "enforce_eager": "eager",
    "dtype": "the model option dtype",
    "max_model_len": "the model option window",
    "quantization": "the model option quantization",
    "enable_lora": "the model option lora",
    "disable_log_stats": "nothing: the times of each answer come from these statistics",
    "skip_tokenizer_init": "nothing: stop strings need the tokenizer",
}
"""Engine arguments that have an option of their own here."""


class VllmServer:
    """Built with its options."""

    def __init__(self, options: VllmOptions) -> None:
        self._options, self._further = options, table(options.engine, name="engine", owner="server vllm", taken=OURS)

    def describe(self, model: str, options: EngineModelOptions) -> ModelCard:
        """The model's card; needs no vLLM, loads no weights."""
        return engines.card(model, options, asked_by="server vllm")

    @contextmanager
    def open(self, model: str, options: EngineModelOptions) -> Iterator[VllmSession]:
        """A session on a started engine. Raises ModelError with vLLM's own words where it does not start."""
        card = self.describe(model, options)
        vllm = import_vllm(own_process=self._options.own_process)
        arguments = self.arguments(card, options)
        check_names(arguments, {field.name for field in dataclasses.fields(_engine_arguments())})
        engine = engines.start(vllm.LLM, arguments, name="vLLM", model=card.name)
        session = VllmSession(engine, card, self._options, lora=options.lora)
        try:
            yield session
        finally:
            session.close()

    def arguments(self, card: ModelCard, options: EngineModelOptions) -> dict[str, Any]:
        """The engine's arguments, by vLLM's names."""
        given = self._options
        arguments: dict[str, Any] = {
            "model": card.path,
            "dtype": card.facts.get("dtype", options.dtype),
            "tensor_parallel_size": given.tensor_parallel,
            "max_num_seqs": given.max_batch,
            "enable_prefix_caching": given.prefix_caching,
            "enforce_eager": given.eager,
            "trust_remote_code": options.trust_remote_code,
            "disable_log_stats": False,
        }
        optional = {
            "gpu_memory_utilization": given.memory,
            "max_model_len": options.window,
            "quantization": options.quantization,
        }
        arguments |= {name: value for name, value in optional.items() if value is not None}
        if options.lora:
            arguments |= {"enable_lora": True, "max_lora_rank": max(8, readers.adapter(options.lora).rank)}
        return {**arguments, **self._further}


def check_names(arguments: Mapping[str, Any], known: set[str]) -> None:
    """Refuse an argument that this version of vLLM does not have."""
    for name in arguments:
        if name not in known:
            hint = nearest(name, known)
            raise UsageError(f"this vLLM has no engine argument {name!r}", where="option engine", hint=hint)


def import_vllm(*, own_process: bool) -> Any:
    """The package, imported with statistics of use off. Raises ModelError where it is not installed or broken."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "1" if own_process else "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    return engines.package("vllm", "vLLM", "loom-server-vllm")


def _engine_arguments() -> Any:
    return importlib.import_module("vllm.engine.arg_utils").EngineArgs
